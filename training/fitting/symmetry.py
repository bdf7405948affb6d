"""Products that look the same in a mirror: few good parts are then learned as many.

A mirror is taken where models of good parts cannot tell a mirror image of a part that they did not
learn from the part itself. What such models cannot see they would not find as a defect either, so
nothing is lost; each mirror image shows a variation that the parts at hand do not.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.bundle import Mirror
from training.backbones.features import FeatureCache
from training.calibration.cross_fit import cross_fit
from training.calibration.folds import split_folds
from training.data.folders import LabelledFile
from training.data.mirrored import MIRRORS, mirror_pixels, mirrored
from training.engine.distributed import Worker
from training.evaluation.metrics import image_metrics
from training.methods.registry import Method
from training.methods.train_context import TrainContext, evenly
from training.networks.scorer import HeatmapScore, ScoreSettings
from training.progress import Reporter

# More good parts show enough by themselves, and their mirror images take too long.
MOST_PARTS = 100
# Parts that are tried; more tell nothing else.
_TRIED = 40
_FOLDS = 3
# The image AUROC of a branch between parts and their mirror images up to which they look the same.
# Products that do have 0.43 to 0.66 with 20 to 40 parts, others 0.78 to 1.
ALIKE = 0.7


def find_mirrors(
    method: Method,
    context: TrainContext,
    files: Sequence[LabelledFile],
    groups: NDArray[np.int64],
    settings: ScoreSettings,
) -> tuple[TrainContext, str]:
    """The context with the mirrors in which the parts look the same to every branch that compares
    positions, and what was found, in words; unchanged where there are enough parts.

    `groups` (N) number the groups of `files`. The features of mirror images are in the cache
    afterwards.
    """
    positional = [n for n, branch in enumerate(method.branches) if branch.family == "positions"]
    few = few_parts(context.files, context.another_day)
    if not few or not positional:
        return context, ""
    tried = tuple(evenly(files, _TRIED))
    numbers = {file.sha256: number for number, file in enumerate(files)}
    folds = split_folds(groups[[numbers[file.sha256] for file in tried]], _FOLDS)
    if len(np.unique(folds)) < 2:  # nothing would be left to learn without them
        return context, ""
    add_mirrored(context.cache, tried, MIRRORS, context.reporter, context.worker)
    images = [replace(mirrored(file, mirror), verdict="ng") for mirror in MIRRORS for file in tried]
    part = method.only(positional)
    found, turned = cross_fit(
        part, replace(context, files=tried, another_day=frozenset()), tried, folds, settings,
        defective=images, defective_folds=np.tile(folds, len(MIRRORS)),
    )  # fmt: skip
    size, layout = context.cache.source.size, context.cache.layout
    score = HeatmapScore(size.height // layout.grid[0], layout.grid, settings)
    apart = _aurocs(
        found.branch_scores(score, context.roi), turned.branch_scores(score, context.roi)
    )
    mirrors = tuple(m for m, auroc in zip(MIRRORS, apart, strict=True) if auroc <= ALIKE)
    if not mirrors:
        return context, ""
    add_mirrored(context.cache, few, mirrors, context.reporter, context.worker)
    mirrored_parts = frozenset(file.sha256 for file in few)
    whose = "all" if len(few) == len(context.files) else "those of another day"
    text = (
        f"The parts look the same mirrored ({', '.join(mirrors)}), so mirror images of {whose} are "
        f"learned, too: {len(context.files) + len(few) * len(mirrors)} images."
    )
    return replace(context, mirrors=mirrors, mirrored=mirrored_parts), text


def few_parts(
    files: Sequence[LabelledFile], another_day: frozenset[str]
) -> tuple[LabelledFile, ...]:
    """Of which parts mirror images are worth their time: of all where there are few, else of those
    of another day where these are few, else of none."""
    late = [file for file in files if file.sha256 in another_day]
    for few in (files, late):
        if len(few) <= MOST_PARTS:
            return tuple(few)
    return ()


def _aurocs(parts_PN: torch.Tensor, images_PM: torch.Tensor) -> list[float]:
    """Of each mirror, the highest image AUROC of a branch between parts and mirror images."""
    count = parts_PN.shape[1]
    anomalous = np.arange(2 * count) >= count
    once = np.ones((1, 2 * count))
    return [
        max(
            float(image_metrics(torch.cat(pair).numpy(), anomalous, once)["image_auroc"][0])
            for pair in zip(parts_PN, of_mirror, strict=True)
        )
        for of_mirror in images_PM.split(count, 1)
    ]


def add_mirrored(
    cache: FeatureCache,
    files: Sequence[LabelledFile],
    mirrors: Sequence[Mirror],
    reporter: Reporter,
    worker: Worker,
) -> None:
    """Compute the features of mirror images where they are missing."""
    with reporter.bar("Mirror images", len(files)) as advance:
        for done, file in enumerate(worker.part(files), 1):
            missing = [m for m in mirrors if mirrored(file, m).sha256 not in cache]
            if missing:
                image = cache.source.read(file.image)
                for mirror in missing:
                    cache.put({mirrored(file, mirror).sha256: mirror_pixels(image, mirror)})
            advance(done, "")
    worker.wait()
