"""Synthetic anomalies on good parts, and images of something else: labels that cost nobody time.

Confetti is FCDD's (Liznerski et al., arXiv 2007.01760), as ADTR uses it; cut-paste is Li et al.'s
(arXiv 2104.04015); textures blended through Perlin noise are DRAEM's (Zavrtanik et al., arXiv
2108.07610), here with textures that are drawn, since nobody's photographs ship with Kizu.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.image import Mask, Pixels
from training.data.folders import SUFFIXES, LabelledFile
from training.errors import DatasetError

Draw = Callable[[Pixels, np.random.Generator], Pixels]

# Less than this of 255 is what a camera's noise does, too.
_VISIBLE = 8
# Changes with what any of the functions below draws.
EDITION = 1


def confetti(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A few rotated, smoothed, coloured blobs; sides are FCDD's 8 to 54 pixels at 256."""
    drawn = image.astype(np.float32)
    for _ in range(rng.integers(1, 4)):
        sides = rng.uniform(8, 54, 2) * image.shape[0] / 256
        box = ((_spot(image, rng)), (float(sides[0]), float(sides[1])), float(rng.uniform(0, 180)))
        shape = np.zeros(image.shape[:2], np.float32)
        cv2.fillPoly(shape, [cv2.boxPoints(box).astype(np.int32)], 1.0)
        soft = cv2.GaussianBlur(shape, (0, 0), rng.uniform(0.5, 2.0))[..., None]
        # On a grey part colour itself would give the anomaly away.
        colour = rng.uniform(0, 255, 1 if _grey(image) else 3)
        drawn += soft * (colour - drawn)
    return _pixels(drawn)


def cut_paste(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A patch of the part, or a thin scar of it, turned and put elsewhere with other brightness."""
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        area, ratio = rng.uniform(0.01, 0.08), np.exp(rng.uniform(-1.1, 1.1))
        sides = np.sqrt(area * height * width * np.array([ratio, 1 / ratio]))
    else:
        sides = np.array([rng.uniform(10, 40), rng.uniform(2, 12)]) * height / 256
    rows, columns = np.clip(sides.astype(int), 2, (height // 2, width // 2))
    y, x = rng.integers(height - rows), rng.integers(width - columns)
    patch = image[y : y + rows, x : x + columns].astype(np.float32) * rng.uniform(0.7, 1.3)
    (at_x, at_y), angle = _spot(image, rng), rng.uniform(0, 360)
    turn = cv2.getRotationMatrix2D((columns / 2, rows / 2), angle, 1.0)
    turn[:, 2] += (at_x - columns / 2, at_y - rows / 2)
    shape = cv2.warpAffine(np.ones((rows, columns), np.float32), turn, (width, height))
    pasted = cv2.warpAffine(patch, turn, (width, height))
    covered = (shape > 0.5)[..., None]
    return _pixels(np.where(covered, pasted, image))


def texture(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A drawn texture, blended in where Perlin-like noise is high."""
    height, width = image.shape[:2]
    island = _noise((height, width), int(2 ** rng.integers(2, 5)), rng)
    island = (island > np.quantile(island, rng.uniform(0.85, 0.98))).astype(np.float32)
    # One or a few islands, not all of them at once.
    seen = cv2.GaussianBlur(np.zeros((height, width), np.float32), (0, 0), 1)
    cv2.circle(seen, tuple(int(v) for v in _spot(image, rng)), int(height * 0.25), 1.0, -1)
    shape = cv2.GaussianBlur(island * seen, (0, 0), 1.0)[..., None]
    grain = _noise((height, width), int(2 ** rng.integers(3, 7)), rng)[..., None]
    low, high = np.sort(rng.uniform(0, 255, (2, 1 if _grey(image) else 3)), axis=0)
    painted = low + (high - low) * (grain - grain.min()) / np.ptp(grain)
    blended = image + shape * rng.uniform(0.3, 1.0) * (painted - image)
    return _pixels(blended)


DRAWINGS: dict[str, Draw] = {"confetti": confetti, "cut-paste": cut_paste, "texture": texture}


def changed(before: Pixels, after: Pixels) -> Mask:
    """The ground truth (H, W): where a drawing can be seen."""
    return np.asarray(np.abs(after.astype(np.int16) - before).max(axis=2) > _VISIBLE)


def drawn_on(parts: int, count: int, seed: int) -> list[int]:
    """On which of so many parts each of `count` anomalies is drawn: each part in a random order,
    and again where there are fewer parts."""
    rng = np.random.default_rng([seed, parts])
    rounds = [rng.permutation(parts) for _ in range(-(-count // parts))]
    return [int(part) for part in np.concatenate(rounds)[:count]]


def external_anomalies(directory: Path) -> tuple[LabelledFile, ...]:
    """Images of something else, from any folder and its folders: defective as a whole.

    Raises DatasetError for a folder without images.
    """
    paths = sorted(p for p in directory.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise DatasetError(
            f"There are no images in {directory}.",
            remedy="Name a folder of images (JPEG, PNG, BMP, TIFF or WebP) that show other things.",
        )
    return tuple(
        LabelledFile(path, hashlib.sha256(path.read_bytes()).hexdigest(), "ng", "external")
        for path in paths
    )


def _spot(image: Pixels, rng: np.random.Generator) -> tuple[float, float]:
    """A random (x, y), not at the very border."""
    height, width = image.shape[:2]
    return float(rng.uniform(0.1, 0.9) * width), float(rng.uniform(0.1, 0.9) * height)


def _noise(shape: tuple[int, int], cells: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise with so many bumps per side."""
    grid = rng.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(
        cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32
    )


def _grey(image: Pixels) -> bool:
    return bool((np.ptp(image, axis=2) <= 2).all())


def _pixels(values: NDArray[np.floating]) -> Pixels:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
