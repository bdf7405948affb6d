"""Learning from labelled anomalies. ADTR's way: good cells are pulled together, marked ones pushed
apart. What has no network to push with learns to know the labelled defects themselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.image import Mask, read_mask
from training.data.folders import LabelledFile
from training.engine import losses
from training.engine.loop import Schedule, Validation, train
from training.evaluation.metrics import image_metrics
from training.evaluation.scoring import grid_mask, input_mask
from training.methods.train_context import ViewContext, evenly
from training.networks.discriminator import Discriminator, DiscriminatorConfig
from training.networks.scorer import Reconstruction

BATCH = 8
# Discriminators learn cell by cell, which is quick: from more images at a time.
DISCRIMINATION = Schedule(steps=300, batch=16, learning_rate=2e-3, weight_decay=1e-2)
# What the loss by image counts for beside that by cell: without it the largest logits of good
# parts' cells drown small defects.
IMAGES = 0.5
# Held-out good parts and defects that are looked at, at most, and how often in a training.
VALIDATED, TIMES = 60, 15


class _Batch(NamedTuple):
    features: Tensor  # (B, K, H, W), as the branch sees them
    cells: Tensor  # (B, H, W), 1 where a mask marks the cell
    defective: Tensor  # (B), 1 for defective
    located: Tensor  # (B), 1 where the cells say where the defect is, or that there is none


@dataclass(frozen=True)
class LearnDefects:
    """A discriminator of the context's labelled defects; without a mask it learns from images.

    Without any it knows none.
    """

    def __call__(
        self, context: ViewContext, number: int, start: nn.Module | None = None
    ) -> tuple[nn.Module, list[float]]:
        parts = context.context
        # From images alone, a hidden layer would learn each of these few by heart.
        located = any(file.mask for file in parts.defective)
        hidden = DiscriminatorConfig.hidden if located else 0
        torch.manual_seed(parts.seed + 1000 * number)
        discriminator = Discriminator(DiscriminatorConfig(context.shape[0], hidden))
        if not parts.defective:
            return discriminator.eval(), []
        settings = parts.push_pull
        batches = _Batches(context, DISCRIMINATION.batch, parts.files, parts.defective)

        def loss(batch: _Batch) -> Tensor:
            logits = discriminator(batch.features).float()
            by_image = losses.known_images(logits, batch.defective, settings.k)
            located = batch.located
            if not bool((located & (batch.defective > 0)).any()):
                return by_image
            by_cell = losses.known_cells(
                logits[located], batch.cells[located], batch.defective[located]
            )
            return by_cell + IMAGES * by_image

        schedule = replace(DISCRIMINATION, steps=settings.steps)
        with parts.reporter.bar("Learning defects", settings.steps) as advance:
            curve = train(
                discriminator, schedule, batches, loss, seed=parts.seed, worker=parts.worker,
                state=parts.state(number, schedule, "known-defects"),
                validation=_validation(context, discriminator),
                progress=lambda step, value: advance(step, f"loss {value:.3f}"),
            )  # fmt: skip
        return discriminator.eval(), curve


def push_pull(branch: Reconstruction, context: ViewContext, number: int) -> list[float]:
    """Train the network of the branch with this number, which rebuilds good parts, not to rebuild
    the context's defects, in place.

    Half of each batch is defective: a defect with a mask is pushed by its cells, one without as an
    image. Returns the loss of every step. Raises TrainingError.
    """
    parts = context.context
    settings = parts.push_pull

    def loss(batch: _Batch) -> Tensor:
        phi = losses.pseudo_huber(batch.features, branch.network(batch.features))
        by_cell = losses.push_pull_pixels(phi, batch.cells, settings.alpha_pixels)
        by_image = losses.push_pull_images(phi, batch.defective, settings.alpha_images, settings.k)
        return torch.where(batch.located, by_cell, by_image).mean()

    schedule = Schedule(settings.steps, BATCH, settings.learning_rate)
    with parts.reporter.bar("Learning from labels", settings.steps) as advance:
        return train(
            branch.network, schedule, _Batches(context, BATCH, parts.files, parts.defective), loss,
            seed=parts.seed, worker=parts.worker, repeatable=True,
            state=parts.state(number, schedule, "push-pull"),
            validation=_validation(
                context, lambda x: losses.pseudo_huber(x, branch.network(x))
            ),
            progress=lambda step, value: advance(step, f"loss {value:.3f}"),
        )  # fmt: skip


def _validation(context: ViewContext, anomaly: Callable[[Tensor], Tensor]) -> Validation | None:
    """How badly the context's held-out labels are told apart by `anomaly`, from features
    (B, K, H, W) to scores (B, H, W): 1 less the average precision of images, and of cells where
    masks say where defects are. None without held-out labels.

    It is not the loss, which rises while labels are still told apart better and better: what is
    learned becomes too sure of itself first.
    """
    parts, held = context.context, context.context.held_out
    if held is None:
        return None
    files = (*evenly(held.good, VALIDATED), *evenly(held.defective, VALIDATED))
    batches = _Batches(context, BATCH, held.good, held.defective)
    given = [batches.of(files[start : start + BATCH]) for start in range(0, len(files), BATCH)]
    k = parts.push_pull.k

    def error() -> float:
        scores = [anomaly(batch.features).float() for batch in given]
        images = torch.cat([losses.image_scores(each, k) for each in scores])
        found = [_average_precision(images, torch.cat([batch.defective for batch in given]))]
        cells = torch.cat([batch.cells[batch.located].flatten() for batch in given])
        if bool(cells.any()):
            located = [s[batch.located].flatten() for s, batch in zip(scores, given, strict=True)]
            found.append(_average_precision(torch.cat(located), cells))
        return 1 - float(np.mean(found))

    validation = Validation(error, every=max(1, parts.push_pull.steps // TIMES))
    held.errors.append(validation.errors)
    return validation


def _average_precision(scores: Tensor, anomalous: Tensor) -> float:
    once = np.ones((1, len(scores)))
    found = image_metrics(scores.cpu().numpy(), anomalous.bool().cpu().numpy(), once)
    return float(found["image_ap"][0])


class _Batches:
    """The batch of each step, half of it good and half defective, which depends on the seed and the
    step alone."""

    def __init__(
        self,
        context: ViewContext,
        size: int,
        good: Sequence[LabelledFile],
        defective: Sequence[LabelledFile],
    ) -> None:
        _, rows, columns = context.shape
        self._context = context
        self._good, self._defective = good, defective
        self._half = size // 2
        self._blank = np.zeros((rows, columns), np.bool_)
        self._cells = {
            file.sha256: grid_mask(self._mask(file.sha256, file.mask), rows, columns)
            for file in defective
            if file.mask
        }

    def __call__(self, step: int) -> _Batch:
        parts = self._context.context
        rng = np.random.default_rng([parts.seed, step])
        chosen = self._drawn(rng, self._good) + self._drawn(rng, self._defective)
        return self.of(parts.worker.share(chosen))

    def of(self, chosen: Sequence[LabelledFile]) -> _Batch:
        """These parts as a batch."""
        device = self._context.context.worker.device
        marked = np.stack([self._cells.get(file.sha256, self._blank) for file in chosen])
        located = [file.verdict == "ok" or file.sha256 in self._cells for file in chosen]
        return _Batch(
            self._context.named([file.sha256 for file in chosen]).to(device),
            torch.from_numpy(marked).float().to(device),
            torch.tensor([file.verdict == "ng" for file in chosen], device=device).float(),
            torch.tensor(located, device=device),
        )

    def _mask(self, name: str, path: Path) -> Mask:
        """The mask of an image with this hash, in the frame that its features are of."""
        cache = self._context.context.cache
        return cache.to_aligned(name, input_mask(read_mask(path.read_bytes()), cache.source.size))

    def _drawn(self, rng: np.random.Generator, files: Sequence[LabelledFile]) -> list[LabelledFile]:
        return [files[i] for i in rng.integers(len(files), size=self._half)]
