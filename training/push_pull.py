"""The anomaly-available path. ADTR's: good cells are pulled together, marked ones pushed apart."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from training import losses
from training.data import LabelledFile
from training.errors import TrainingError
from training.evaluation import grid_mask
from training.features import FeatureCache
from training.loop import Schedule, train
from training.networks.orientation import Orientation
from training.networks.scorer import Reconstruction, Scorer
from training.progress import Reporter
from training.turns import TURNING, learn_turns, turn_parts
from training.worker import Worker

BATCH = 8


@dataclass(frozen=True)
class PushPull:
    """`alpha_*` weigh the push against the pull; `k` counts the cells that speak for an image."""

    alpha_pixels: float = 0.3
    alpha_images: float = 0.03
    k: int = 10
    steps: int = 300
    learning_rate: float = 5e-4
    seed: int = 0


@dataclass(frozen=True)
class _Batch:
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
    if not any(isinstance(part, Reconstruction | Orientation) for part in scorer.parts):
        raise TrainingError(
            "This model only remembers good parts; it cannot learn from labels.",
            remedy="Fit the recipe with --preset best, fast or paper.",
        )
    curve: list[float] = []
    for number, part in enumerate(scorer.parts):
        if isinstance(part, Reconstruction):
            batches = _Batches(scorer, number, cache, good, defective, settings.seed, worker)
            curve += _learn(part, batches, settings, reporter, worker)
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
    ) -> None:
        _, rows, columns = scorer.shape
        self._scorer = scorer
        self._part = part
        self._cache = cache
        self._good = good
        self._defective = defective
        self._seed = seed
        self._worker = worker
        self._blank = np.zeros((rows, columns), np.bool_)
        self._cells = {f.sha256: grid_mask(f.mask, rows, columns) for f in defective if f.mask}

    def __call__(self, step: int) -> _Batch:
        rng = np.random.default_rng([self._seed, step])
        half = BATCH // 2
        chosen = [self._good[i] for i in rng.integers(len(self._good), size=half)]
        chosen += [self._defective[i] for i in rng.integers(len(self._defective), size=half)]
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
