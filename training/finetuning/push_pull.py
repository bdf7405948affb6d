"""The anomaly-available path. ADTR's: good cells are pulled together, marked ones pushed apart.

What has no network to push with can still learn to know the labelled defects themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.backbones.features import FeatureCache
from training.data.folders import LabelledFile
from training.engine import losses
from training.engine.distributed import Worker
from training.engine.loop import Schedule, train
from training.errors import TrainingError
from training.evaluation.scoring import grid_mask
from training.methods.rotation import TURNING, learn_turns, turn_parts
from training.networks.discriminator import Discriminator
from training.networks.orientation import Orientation
from training.networks.scorer import Reconstruction, Scorer
from training.progress import Reporter

BATCH = 8
# To know defects is learned cell by cell, which is quick: from more images at a time.
KNOWING = Schedule(steps=300, batch=16, learning_rate=2e-3, weight_decay=1e-2)
# What the loss by image counts for beside that by cell: without it the loudest cells of good parts
# outshout small defects.
IMAGES = 0.5


@dataclass(frozen=True)
class PushPull:
    """`alpha_*` weigh the push against the pull; `k` counts the cells that speak for an image."""

    alpha_pixels: float = 0.3
    alpha_images: float = 0.03
    k: int = 10
    steps: int = 300
    learning_rate: float = 5e-4
    seed: int = 0


# The parts of a scorer that learn from labels.
LEARNING = (Reconstruction, Orientation, Discriminator)


class _Batch(NamedTuple):
    features: Tensor  # (B, K, H, W), as the scorer's parts see them
    cells: Tensor  # (B, H, W), 1 where a mask marks the cell
    defective: Tensor  # (B), 1 for defective
    located: Tensor  # (B), 1 where the cells say where the defect is, or that there is none


def learn_labels(
    scorer: Scorer,
    cache: FeatureCache,
    good: Sequence[LabelledFile],
    defective: Sequence[LabelledFile],
    settings: PushPull,
    reporter: Reporter,
    worker: Worker,
) -> list[float]:
    """Train the networks of `scorer`, in place.

    Of what rebuilds half of each batch is defective: a defect with a mask is pushed by its cells,
    one without as an image. To what tells turns, defective parts are other things. Returns the loss
    of every step. Raises TrainingError for a scorer that has nothing to train.
    """
    if not any(isinstance(part, LEARNING) for part in scorer.parts):
        raise TrainingError(
            "This model only remembers good parts; it cannot learn from anomalies.",
            remedy="Fit the recipe with --preset best, fast or paper.",
        )
    curve: list[float] = []
    for number, part in enumerate(scorer.parts):
        if isinstance(part, Reconstruction):
            batches = _Batches(scorer, number, cache, good, defective, settings.seed, worker, BATCH)
            curve += _learn(part, batches, settings, reporter, worker)
        elif isinstance(part, Discriminator):
            size = KNOWING.batch
            batches = _Batches(scorer, number, cache, good, defective, settings.seed, worker, size)
            curve += _know(part, batches, settings, reporter, worker)
        elif isinstance(part, Orientation):
            curve += learn_turns(
                part,
                partial(_seen, scorer, number, cache),
                turn_parts(cache, good, reporter, worker),
                [file.sha256 for file in defective],
                replace(TURNING, steps=settings.steps),
                seed=settings.seed, reporter=reporter, worker=worker,
            )  # fmt: skip
    scorer.eval()
    return curve


def _seen(scorer: Scorer, part: int, cache: FeatureCache, names: Sequence[str]) -> Tensor:
    """Features (B, K, H, W) by name, as a part sees them."""
    return scorer.seen(torch.from_numpy(np.stack([cache[name] for name in names])), part)


def _learn(
    part: Reconstruction,
    batches: "_Batches",
    settings: PushPull,
    reporter: Reporter,
    worker: Worker,
) -> list[float]:
    def loss(batch: _Batch) -> Tensor:
        phi = losses.pseudo_huber(batch.features, part.network(batch.features))
        by_cell = losses.push_pull_pixels(phi, batch.cells, settings.alpha_pixels)
        by_image = losses.push_pull_images(phi, batch.defective, settings.alpha_images, settings.k)
        return torch.where(batch.located, by_cell, by_image).mean()

    schedule = Schedule(settings.steps, BATCH, settings.learning_rate)
    with reporter.bar("Learning from labels", settings.steps) as advance:
        return train(
            part.network, schedule, batches, loss, seed=settings.seed, worker=worker,
            progress=lambda step, value: advance(step, f"loss {value:.3f}"), repeatable=True,
        )  # fmt: skip


def _know(
    part: Discriminator,
    batches: "_Batches",
    settings: PushPull,
    reporter: Reporter,
    worker: Worker,
) -> list[float]:
    def loss(batch: _Batch) -> Tensor:
        logits = part.logits(batch.features).float()
        by_image = losses.known_images(logits, batch.defective, settings.k)
        located = batch.located
        if not bool((located & (batch.defective > 0)).any()):
            return by_image
        by_cell = losses.known_cells(
            logits[located], batch.cells[located], batch.defective[located]
        )
        return by_cell + IMAGES * by_image

    schedule = replace(KNOWING, steps=settings.steps)
    with reporter.bar("Knowing defects", settings.steps) as advance:
        return train(
            part, schedule, batches, loss, seed=settings.seed, worker=worker,
            progress=lambda step, value: advance(step, f"loss {value:.3f}"),
        )  # fmt: skip


class _Batches:
    """The batch of each step, which depends on the seed and the step alone."""

    def __init__(
        self,
        scorer: Scorer,
        part: int,
        cache: FeatureCache,
        good: Sequence[LabelledFile],
        defective: Sequence[LabelledFile],
        seed: int,
        worker: Worker,
        size: int,
    ) -> None:
        _, rows, columns = scorer.shape
        self._scorer = scorer
        self._part = part
        self._cache = cache
        self._good = good
        self._defective = defective
        self._seed = seed
        self._worker = worker
        self._half = size // 2
        self._blank = np.zeros((rows, columns), np.bool_)
        self._cells = {f.sha256: grid_mask(f.mask, rows, columns) for f in defective if f.mask}

    def __call__(self, step: int) -> _Batch:
        rng = np.random.default_rng([self._seed, step])
        chosen = [self._good[i] for i in rng.integers(len(self._good), size=self._half)]
        chosen += [self._defective[i] for i in rng.integers(len(self._defective), size=self._half)]
        chosen = list(self._worker.share(chosen))
        device = self._worker.device
        names = [file.sha256 for file in chosen]
        marked = np.stack([self._cells.get(file.sha256, self._blank) for file in chosen])
        located = [file.verdict == "ok" or file.sha256 in self._cells for file in chosen]
        return _Batch(
            _seen(self._scorer, self._part, self._cache, names).to(device),
            torch.from_numpy(marked).float().to(device),
            torch.tensor([file.verdict == "ng" for file in chosen], device=device).float(),
            torch.tensor(located, device=device),
        )
