"""The smallest defect that a model finds, measured with spots drawn on good parts.

Spots are not defects: a model that misses them is too coarse, one that finds them has only shown
that size is not what stands in its way.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.bundle import Thresholds
from models.image import Mask, Pixels, decode, resize
from training.backbones.features import FeatureCache
from training.data.folders import LabelledFile
from training.progress import Reporter

# Diameters as shares of the image's shorter side, from a four-hundredth to a ninth; and how far of
# 255 a spot differs from what it covers.
SHARES = tuple(2 ** (step / 2) / 400 for step in range(12))
_SMALLEST = 2  # pixels of the camera: less is what noise does, too
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


@dataclass(frozen=True)
class Spots:
    """Spots of all `sides`, in pixels of the camera's image, on each of some parts: `files` are the
    parts' images with them, part by part, whose features are in a cache."""

    files: tuple[LabelledFile, ...]
    sides: tuple[float, ...]
    scale: float

    def sensitivity(self, scores: NDArray[np.float32], thresholds: Thresholds) -> Sensitivity:
        """What the thresholds do to the scores of `files`."""
        verdicts = np.array([thresholds.verdict(score) for score in scores.tolist()])
        by_part = verdicts.reshape(-1, len(self.sides))
        return Sensitivity(
            self.sides,
            tuple((by_part != "ok").mean(0).tolist()),
            tuple((by_part == "ng").mean(0).tolist()),
            self.scale,
        )


def draw_spots(
    parts: Sequence[LabelledFile],
    cache: FeatureCache,
    reporter: Reporter,
    roi_HW: Mask | None = None,
) -> Spots:
    """Draw a spot of every size on each part, at the camera's resolution, and put the features of
    the images into `cache`; in the region of interest (H, W), which is of aligned images. Parts
    that a model learned show what it finds on these alone: measure spots by a model that did not
    learn the part."""
    source, drawn = cache.source, []
    first = decode(parts[0].image.read_bytes(), source.pixels)
    shorter = min(first.shape[:2])
    shares = [share for share in SHARES if share * shorter >= _SMALLEST] or SHARES[-1:]
    with reporter.bar("Drawing spots", len(parts)) as advance:
        for number, part in enumerate(parts):
            inside = None if roi_HW is None else cache.to_image(part.sha256, roi_HW)
            names = [_name(part, share, inside) for share in shares]
            if any(name not in cache for name in names):
                image = decode(part.image.read_bytes(), source.pixels)
                seen = None if inside is None else source.on_image(inside, image)
                rng = np.random.default_rng(list(bytes.fromhex(part.sha256)))
                sides = [share * min(image.shape[:2]) for share in shares]
                for name, side in zip(names, sides, strict=True):
                    spotted = resize(spot(image, side, rng, seen), source.size)
                    cache.put({name: spotted})  # one by one: large inputs take much memory
            drawn += [LabelledFile(part.image, name, "ng", "spot") for name in names]
            advance(number + 1, "")
    return Spots(
        tuple(drawn), tuple(share * shorter for share in shares), source.scale(parts[0].image)
    )


def _name(part: LabelledFile, share: float, roi_HW: Mask | None) -> str:
    inside = b"" if roi_HW is None else roi_HW.tobytes()
    facts = f"spot {CONTRAST} {part.sha256} {share}".encode()
    return hashlib.sha256(facts + inside).hexdigest()


def spot(
    image: Pixels, side: float, rng: np.random.Generator, roi_HW: Mask | None = None
) -> Pixels:
    """The image (H, W, 3) with a round spot with a soft edge, darker on what is bright and brighter
    on what is dark; in one of the cells of a region of interest, or anywhere but near the border.
    """
    height, width = image.shape[:2]
    x, y = rng.uniform(0.2, 0.8, 2) * (width, height)
    if roi_HW is not None and not roi_HW.all():
        row, column = rng.choice(np.argwhere(roi_HW))
        x = (column + rng.random()) * width / roi_HW.shape[1]
        y = (row + rng.random()) * height / roi_HW.shape[0]
    reach = int(side / 2) + 2
    top, left = max(0, int(y) - reach), max(0, int(x) - reach)
    box = np.s_[top : int(y) + reach + 1, left : int(x) + reach + 1]
    rows, columns = np.mgrid[box[0], box[1]]
    rows, columns = rows[: height - top, : width - left], columns[: height - top, : width - left]
    away = np.hypot(columns - x, rows - y)
    covered = np.clip(side / 2 - away + 0.5, 0, 1).astype(np.float32)[..., None]
    under = float((covered * image[box]).sum() / (3 * covered.sum()))
    spotted: Pixels = image.copy()
    drawn = image[box] + covered * (-CONTRAST if under > 127 else CONTRAST)
    spotted[box] = np.clip(np.round(drawn), 0, 255).astype(np.uint8)
    return spotted
