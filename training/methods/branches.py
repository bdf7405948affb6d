"""What each kind of scorer learns from good parts: by descent, or by looking once."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.engine import losses
from training.engine.loop import Schedule, epochs, train
from training.methods.rotation import EPOCHS, TURNING, learn_turns, turn_parts
from training.methods.train_context import Lesson
from training.networks.adtr import Adtr
from training.networks.memory_bank import (
    MemoryBank,
    MemoryBankConfig,
    greedy_coreset,
    neighbourhood_mean,
)
from training.networks.orientation import Orientation, OrientationConfig
from training.networks.place_bank import PlaceBank, PlaceBankConfig
from training.networks.places import by_place, places_of
from training.networks.scorer import Length, Reconstruction
from training.networks.whitening import Moments, Whitening

PAPER_EPOCHS = 500
PAPER_BATCH = 16
# Of the mean variance of a direction: what varies less on good parts is rounding, and whitened it
# would drown everything. Channels can depend on each other exactly.
SILENCE = 1e-3
# The coreset is chosen among so many random vectors at most: its cost grows with their number.
CANDIDATES = 50_000


@dataclass(frozen=True)
class Whiten:
    """A Gaussian for each place or for all, on at most `kept` directions: random channels (PaDiM),
    or the principal components of good parts. `pooled`: of the mean of an image's cells."""

    kept: int
    per_place: bool = True
    components: bool = False
    pooled: bool = False

    def __call__(self, lesson: Lesson) -> Whitening:
        """What makes the features of good parts white."""
        channels, height, width = lesson.shape
        if self.components:
            variance, vectors = torch.linalg.eigh(lesson.covariance.double())  # ascending
            loud = variance >= SILENCE * variance.mean()
            directions = vectors[:, loud][:, -self.kept :].float()
        else:
            rng = np.random.default_rng(lesson.seed)
            chosen = np.sort(rng.permutation(channels)[: self.kept])
            directions = torch.eye(channels)[:, torch.from_numpy(chosen)]
        places = places_of(height, width) if self.per_place and not self.pooled else (1, 1)
        moments = Moments(directions, places, pooled=self.pooled)
        for features in lesson.batches():
            moments.add(features)
        return moments.whitening()


@dataclass(frozen=True)
class Rebuild:
    """A network that learns to rebuild features, by descent on ADTR's normal-only loss.

    `network` makes one for features of a shape (C, H, W). `jitter` is UniAD's (arXiv 2206.03687):
    noise of so many times the token's norm over C, added to what the network sees.
    """

    network: Callable[[tuple[int, int, int]], nn.Module]
    short: Schedule
    jitter: float = 0.0

    def __call__(self, lesson: Lesson, number: int) -> tuple[nn.Module, list[float]]:
        seed = lesson.seed + 1000 * number
        torch.manual_seed(seed)
        network = self.network(lesson.shape)
        if isinstance(network, Adtr):
            network.start_at_components(lesson.covariance)
        schedule = self._schedule(lesson)
        indices = epochs(len(lesson.files), schedule.batch, seed)
        worker = lesson.worker

        def batch(step: int) -> Tensor:
            return lesson.features(worker.share(indices(step))).to(worker.device)

        def loss(features: Tensor) -> Tensor:
            return losses.reconstruction(features, network(self._jittered(features)))

        with lesson.reporter.bar("Training", schedule.steps) as advance:
            curve = train(
                network, schedule, batch, loss, seed=seed, worker=worker, repeatable=True,
                state=lesson.state(number, schedule) if lesson.state else None,
                progress=lambda step, value: advance(step, f"loss {value:.1f}"),
            )  # fmt: skip
        return Reconstruction(network), curve

    def _schedule(self, lesson: Lesson) -> Schedule:
        chosen = self.short
        if lesson.schedule == "paper":
            per_epoch = max(1, len(lesson.files) // PAPER_BATCH)
            chosen = Schedule(PAPER_EPOCHS * per_epoch, PAPER_BATCH, 1e-4, kind="step")
        return dataclasses.replace(chosen, steps=lesson.steps) if lesson.steps else chosen

    def _jittered(self, features: Tensor) -> Tensor:
        if not self.jitter:
            return features
        spread = features.norm(dim=1, keepdim=True) / features.shape[1] * self.jitter
        return features + spread * torch.randn_like(features)


@dataclass(frozen=True)
class Remember:
    """A bank of `size` feature vectors: random ones, or a greedy coreset."""

    size: int
    neighbourhood: int = 1
    coreset: bool = False

    def __call__(self, lesson: Lesson, number: int) -> tuple[nn.Module, list[float]]:
        rng = np.random.default_rng([lesson.seed, number])
        wanted = max(self.size, CANDIDATES) if self.coreset else self.size
        share = -(-wanted // len(lesson.files))
        drawn = []
        for features in lesson.batches():
            near = neighbourhood_mean(features, self.neighbourhood).flatten(2).transpose(1, 2)
            drawn += [part[torch.from_numpy(rng.permutation(len(part))[:share])] for part in near]
        vectors = torch.cat(drawn)
        vectors = vectors[torch.from_numpy(rng.permutation(len(vectors))[:wanted])]
        if self.coreset:
            vectors = vectors[greedy_coreset(vectors, self.size, seed=lesson.seed)]
        bank = MemoryBank(MemoryBankConfig(lesson.shape[0], len(vectors), self.neighbourhood))
        bank.bank_NC.copy_(vectors)
        return bank.eval(), []


@dataclass(frozen=True)
class Recall:
    """A bank of `size` vectors at most for each place: of all good parts, or of random ones."""

    size: int

    def __call__(self, lesson: Lesson, number: int) -> tuple[nn.Module, list[float]]:
        channels, height, width = lesson.shape
        places = places_of(height, width)
        rng = np.random.default_rng([lesson.seed, number])
        chosen = np.sort(rng.permutation(len(lesson.files))[: self.size])
        share = max(1, self.size // len(chosen))  # of a part's cells at each place
        drawn = []
        for index in chosen.tolist():
            tokens_PNC = by_place(lesson.features([index]), places)
            some = torch.from_numpy(rng.permutation(tokens_PNC.shape[1])[:share])
            drawn.append(tokens_PNC[:, some])
        bank_PMC = torch.cat(drawn, 1)
        bank = PlaceBank(PlaceBankConfig(channels, places, bank_PMC.shape[1]))
        bank.bank_PMC.copy_(bank_PMC)
        return bank.eval(), []


@dataclass(frozen=True)
class Measure:
    """Nothing but the length of features."""

    def __call__(self, lesson: Lesson, number: int) -> tuple[nn.Module, list[float]]:
        return Length(), []


@dataclass(frozen=True)
class Orient:
    """How surely a part is seen to be upright, learned from good parts and these same parts turned
    by quarters.

    It knows what good parts show as a whole, where their features' statistics are usual, too. Parts
    that look the same however they are turned teach it nothing.
    """

    def __call__(self, lesson: Lesson, number: int) -> tuple[nn.Module, list[float]]:
        seed = lesson.seed + 1000 * number
        turned = turn_parts(lesson.cache, lesson.files, lesson.reporter, lesson.worker)
        torch.manual_seed(seed)
        network = Orientation(OrientationConfig(*lesson.shape))
        every_part = EPOCHS * len(lesson.files) // TURNING.batch
        steps = lesson.steps or max(TURNING.steps, every_part)
        schedule = dataclasses.replace(TURNING, steps=steps)
        curve = learn_turns(
            network, lesson.named, turned, (), schedule,
            seed=seed, reporter=lesson.reporter, worker=lesson.worker,
            state=lesson.state(number, schedule) if lesson.state else None,
        )  # fmt: skip
        return network, curve
