"""How each kind of branch learns from good parts: by descent, or from statistics alone."""

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.engine import losses
from training.engine.loop import Schedule, epochs, train
from training.methods.push_pull import push_pull
from training.methods.rotation import EPOCHS, ROTATION, learn_rotations, rotate_parts
from training.methods.train_context import STATISTICS_PARTS, ViewContext, evenly
from training.networks.adtr import Adtr
from training.networks.coreset import coreset_by_position, greedy_coreset
from training.networks.image_bank import ImageBank, ImageBankConfig
from training.networks.memory_bank import MemoryBank, MemoryBankConfig
from training.networks.orientation import Orientation, OrientationConfig
from training.networks.positional_bank import PositionalBank, PositionalBankConfig
from training.networks.positions import MOST_PER_SIDE, by_position, positions_of
from training.networks.scorer import Length, Reconstruction
from training.networks.whitening import Moments, Whitening

PAPER_EPOCHS = 500
PAPER_BATCH = 16
# Of the mean variance of a direction: what varies less on good parts is rounding, and whitened it
# would drown everything. Channels can depend on each other exactly.
SILENCE = 1e-3
# The coreset is chosen among so many random vectors at most: its cost grows with their number.
CANDIDATES = 100_000
# Of a positional bank, of which each image that is scored reads all; and of what it is chosen from.
BANK_BYTES = 24 * 2**20
CHOSEN_FROM_BYTES = 400 * 2**20
# Of the mean variance, added to covariances that are shrunk; chosen by nothing: between 0.01 and
# 0.2 the tile's figures do not change.
_RIDGE = 0.05


@dataclass(frozen=True)
class Whiten:
    """A Gaussian for each position or for all, on at most `kept` directions: random channels
    (PaDiM), or the principal components of good parts. `pooled`: of the mean of an image's cells.

    `per_side` is the number of positions along each side. With `shrink`, covariances move towards
    the mean of all positions, the more the fewer parts there are.
    """

    kept: int
    positional: bool = True
    components: bool = False
    pooled: bool = False
    per_side: int = MOST_PER_SIDE
    shrink: bool = False

    def __call__(self, context: ViewContext) -> Whitening:
        """The whitening of the features of good parts."""
        channels, height, width = context.shape
        if self.components:
            variance, vectors = context.components
            varying = variance >= SILENCE * variance.mean()
            directions = vectors[:, varying][:, -self.kept :].float()
        else:
            rng = np.random.default_rng(context.context.seed)
            chosen = np.sort(rng.permutation(channels)[: self.kept])
            directions = torch.eye(channels)[:, torch.from_numpy(chosen)]
        one = not self.positional or self.pooled
        positions = (1, 1) if one else positions_of(height, width, self.per_side)
        moments = Moments(directions, positions, pooled=self.pooled)
        few = STATISTICS_PARTS if positions == (1, 1) and not self.pooled else None
        for features in context.batches(few):
            moments.add(features)
        if self.shrink:
            return moments.whitening(shrink=True, ridge=_RIDGE)
        return moments.whitening()


@dataclass(frozen=True)
class TrainReconstruction:
    """A network that learns to rebuild features, by descent on ADTR's normal-only loss.

    `network` makes one for features of a shape (C, H, W). `jitter` is UniAD's (arXiv 2206.03687):
    noise of so many times the token's norm over C, added to what the network sees. With `paper` the
    schedule is always the paper's.
    """

    network: Callable[[tuple[int, int, int]], nn.Module]
    short: Schedule
    jitter: float = 0.0
    paper: bool = False

    def __call__(
        self, context: ViewContext, number: int, start: nn.Module | None = None
    ) -> tuple[nn.Module, list[float]]:
        parts = context.context
        if isinstance(start, Reconstruction):
            branch = copy.deepcopy(start)
            return branch, push_pull(branch, context, number) if parts.defective else []
        seed = parts.seed + 1000 * number
        torch.manual_seed(seed)
        network = self.network(context.shape)
        if isinstance(network, Adtr) and not network.config.strict:
            network.start_at_components(context.covariance)
        schedule = self._schedule(context)
        indices = epochs(len(parts.learned), schedule.batch, seed)
        worker = parts.worker

        def batch(step: int) -> Tensor:
            return context.features(worker.share(indices(step))).to(worker.device)

        def loss(features: Tensor) -> Tensor:
            return losses.reconstruction(features, network(self._jittered(features)))

        with parts.reporter.bar("Training", schedule.steps) as advance:
            curve = train(
                network, schedule, batch, loss, seed=seed, worker=worker, repeatable=True,
                state=parts.state(number, schedule),
                progress=lambda step, value: advance(step, f"loss {value:.1f}"),
            )  # fmt: skip
        branch = Reconstruction(network)
        if parts.defective:
            curve += push_pull(branch, context, number)
        return branch, curve

    def _schedule(self, context: ViewContext) -> Schedule:
        chosen, parts = self.short, context.context
        if self.paper or parts.schedule == "paper":
            per_epoch = max(1, len(parts.learned) // PAPER_BATCH)
            chosen = Schedule(PAPER_EPOCHS * per_epoch, PAPER_BATCH, 1e-4, kind="step")
        return dataclasses.replace(chosen, steps=parts.steps) if parts.steps else chosen

    def _jittered(self, features: Tensor) -> Tensor:
        if not self.jitter:
            return features
        spread = features.norm(dim=1, keepdim=True) / features.shape[1] * self.jitter
        jittered: Tensor = features + spread * torch.randn_like(features)
        return jittered


@dataclass(frozen=True)
class PatchMemory:
    """A memory bank of `size` patches from anywhere: random ones, or a greedy coreset."""

    size: int
    coreset: bool = False
    candidates: int = CANDIDATES

    def __call__(
        self, context: ViewContext, number: int, start: nn.Module | None = None
    ) -> tuple[nn.Module, list[float]]:
        seed = context.context.seed
        rng = np.random.default_rng([seed, number])
        wanted = max(self.size, self.candidates) if self.coreset else self.size
        share = -(-wanted // len(context.context.learned))
        inside = context.inspected().flatten()
        share = min(share, int(inside.sum()))
        # Not a list of small tensors between large ones, which would leave holes in the memory: of
        # 10,000 parts, gigabytes.
        vectors = torch.empty(len(context.context.learned) * share, context.shape[0])
        filled = 0
        for features in context.batches():
            for part in features.flatten(2)[..., inside].transpose(1, 2):
                chosen = torch.from_numpy(rng.permutation(len(part))[:share])
                vectors[filled : filled + share] = part[chosen]
                filled += share
        vectors = vectors[torch.from_numpy(rng.permutation(len(vectors))[:wanted])]
        if self.coreset:
            vectors = vectors[greedy_coreset(vectors, self.size, seed=seed)]
        if isinstance(start, MemoryBank):
            vectors = torch.cat([start.vectors, vectors])
            if len(vectors) > self.size:
                vectors = vectors[greedy_coreset(vectors, self.size, seed=seed)]
        bank = MemoryBank(MemoryBankConfig(context.shape[0], len(vectors)))
        bank.remember(vectors)
        return bank.eval(), []


@dataclass(frozen=True)
class PositionalKnn:
    """A bank for each position: of vectors of good parts there, those that cover all of them.

    `per_side` is the number of positions along each side. A bank takes `BANK_BYTES` at most. On
    magnetic tiles 24 MiB of vectors that cover all have an image AUROC of 96.8, where 96 MiB of an
    even choice of parts have 96.0.
    """

    per_side: int = MOST_PER_SIDE

    def __call__(
        self, context: ViewContext, number: int, start: nn.Module | None = None
    ) -> tuple[nn.Module, list[float]]:
        channels, height, width = context.shape
        rows, columns = positions = positions_of(height, width, self.per_side)
        of_each = 4 * channels * rows * columns  # bytes of a vector at each position
        cells = height * width // (rows * columns)
        once = tuple(dict.fromkeys(context.context.learned))  # a vector covers as much as two alike
        parts = evenly(once, max(1, CHOSEN_FROM_BYTES // (of_each * cells)))
        vectors_PNC = torch.empty(rows * columns, len(parts) * cells, channels)
        for number, file in enumerate(parts):
            tokens_PNC = by_position(context.named([file.sha256]), positions)
            vectors_PNC[:, number * cells : (number + 1) * cells] = tokens_PNC
        if isinstance(start, PositionalBank):
            vectors_PNC = torch.cat([start.bank_PMC, vectors_PNC], 1)
        bank_PMC = coreset_by_position(vectors_PNC, max(1, BANK_BYTES // of_each))
        bank = PositionalBank(PositionalBankConfig(channels, positions, bank_PMC.shape[1]))
        bank.remember(bank_PMC)
        return bank.eval(), []


@dataclass(frozen=True)
class ImageMemory:
    """A bank of whole images: all good ones, or an even choice of `most`."""

    neighbours: int = 10
    most: int = 5000

    def __call__(
        self, context: ViewContext, number: int, start: nn.Module | None = None
    ) -> tuple[nn.Module, list[float]]:
        images = [features.mean((2, 3)) for features in context.batches(self.most)]
        if isinstance(start, ImageBank):
            images.insert(0, start.bank_NC)
        features_NC = torch.cat(images)
        features_NC = features_NC[-self.most :]
        neighbours = min(self.neighbours, len(features_NC))
        bank = ImageBank(ImageBankConfig(context.shape[0], len(features_NC), neighbours))
        bank.remember(features_NC)
        return bank.eval(), []


@dataclass(frozen=True)
class GaussianDistance:
    """Nothing but the length of features: of whitened ones, the Mahalanobis distance."""

    def __call__(
        self, context: ViewContext, number: int, start: nn.Module | None = None
    ) -> tuple[nn.Module, list[float]]:
        return Length(), []


@dataclass(frozen=True)
class TrainRotation:
    """How surely a part is seen to be upright, learned from good parts and these same parts turned
    by quarters.

    It knows what good parts show as a whole, where their features' statistics are usual, too. Parts
    that look the same however they are turned teach it nothing.
    """

    def __call__(
        self, context: ViewContext, number: int, start: nn.Module | None = None
    ) -> tuple[nn.Module, list[float]]:
        parts = context.context
        seed = parts.seed + 1000 * number
        rotated = rotate_parts(parts.cache, parts.files, parts.reporter, parts.worker)
        torch.manual_seed(seed)
        network = Orientation(OrientationConfig(*context.shape))
        if isinstance(start, Orientation):
            network = copy.deepcopy(start)
        every_part = EPOCHS * len(parts.files) // ROTATION.batch
        steps = parts.steps or max(ROTATION.steps, every_part)
        schedule = dataclasses.replace(ROTATION, steps=steps)
        curve = learn_rotations(
            network, context.named, rotated, (), schedule,
            seed=seed, reporter=parts.reporter, worker=parts.worker,
            state=parts.state(number, schedule),
        )  # fmt: skip
        if parts.defective:
            others = [file.sha256 for file in parts.defective]
            schedule = dataclasses.replace(ROTATION, steps=parts.push_pull.steps)
            curve += learn_rotations(
                network, context.named, rotated, others, schedule,
                seed=seed, reporter=parts.reporter, worker=parts.worker,
                state=parts.state(number, schedule, "other-things"),
            )  # fmt: skip
        return network, curve
