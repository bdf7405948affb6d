"""The smallest defect that a model finds, measured with spots drawn on good parts.

Spots are not defects: a model that misses them is too coarse, one that finds them has only shown
that size is not what stands in its way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.bundle import Thresholds
from models.image import Pixels
from training.backbones.features import FeatureCache
from training.data.folders import LabelledFile
from training.networks.scorer import Scorer
from training.progress import Reporter

# Diameters in pixels of the network's input, and how far of 255 a spot differs from what it covers.
SIDES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
CONTRAST = 64
# Good parts that every size is tried on.
PARTS = 10
FOUND = 0.9


@dataclass(frozen=True)
class Sensitivity:
    """For each diameter, the share of spots that would be sent to review, and rejected.

    `sides` are pixels of the camera's image, of which `scale` make one of the network's input.
    """

    sides: tuple[float, ...]
    review: tuple[float, ...]
    ng: tuple[float, ...]
    scale: float

    def smallest(self, shares: Sequence[float]) -> float | None:
        """The diameter from which on at least nine of ten are found; None if no size is."""
        found = None
        for side, share in zip(self.sides[::-1], shares[::-1], strict=True):
            if share < FOUND:
                break
            found = side
        return found

    def __str__(self) -> str:
        review, ng = self.smallest(self.review), self.smallest(self.ng)
        if review is None:
            return (
                f"Of drawn spots, not even those of {self.sides[-1]:.0f} px are found in 9 of 10 "
                "cases: choose a larger --size, or look at the scores of good parts."
            )
        rejected = f"rejected from {ng:.0f} px on" if ng else "not rejected whatever their size"
        return (
            f"Of drawn spots, 9 of 10 are sent to review from {review:.0f} px of the camera's "
            f"image on, and {rejected}."
        )


def find_spots(
    scorer: Scorer,
    cache: FeatureCache,
    normals: Sequence[LabelledFile],
    thresholds: Thresholds,
    reporter: Reporter,
) -> Sensitivity:
    """Draw spots of every size on good parts that set the thresholds, and score them."""
    parts = normals[:PARTS]
    images = [cache.source.read(file.image) for file in parts]
    sides = [side for side in SIDES if 4 * side <= min(images[0].shape[:2])]
    review, ng = np.zeros(len(sides)), np.zeros(len(sides))
    with reporter.bar("Drawing spots", len(parts)) as advance:
        for number, image in enumerate(images):
            rng = np.random.default_rng(number)
            spotted = np.stack([spot(image, side, rng, scorer.roi_HW.numpy()) for side in sides])
            with torch.inference_mode():
                scores, _ = scorer(cache.compute(spotted))
            verdicts = [thresholds.verdict(score) for score in scores.tolist()]
            review += [verdict in ("review", "ng") for verdict in verdicts]
            ng += [verdict == "ng" for verdict in verdicts]
            advance(number + 1, "")
    scale = cache.source.scale(parts[0].image)
    return Sensitivity(
        tuple(side * scale for side in sides),
        tuple((review / len(parts)).tolist()),
        tuple((ng / len(parts)).tolist()),
        scale,
    )


def spot(
    image: Pixels, side: int, rng: np.random.Generator, roi_HW: NDArray[np.float32] | None = None
) -> Pixels:
    """A round spot with a soft edge, darker on what is bright and brighter on what is dark; in one
    of the cells of a region of interest, or anywhere but near the border."""
    height, width = image.shape[:2]
    x, y = rng.uniform(0.2, 0.8, 2) * (width, height)
    if roi_HW is not None and not roi_HW.all():
        row, column = rng.choice(np.argwhere(roi_HW))
        x = (column + rng.random()) * width / roi_HW.shape[1]
        y = (row + rng.random()) * height / roi_HW.shape[0]
    rows, columns = np.mgrid[:height, :width]
    away = np.hypot(columns - x, rows - y)
    covered = np.clip(side / 2 - away + 0.5, 0, 1).astype(np.float32)[..., None]
    under = float((covered * image).sum() / (3 * covered.sum()))
    drawn = image + covered * (-CONTRAST if under > 127 else CONTRAST)
    spotted: Pixels = np.clip(np.round(drawn), 0, 255).astype(np.uint8)
    return spotted
