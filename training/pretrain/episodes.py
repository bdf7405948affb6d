"""Episodes: some good parts of a drawn product to remember, and others to be judged by them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.image import Pixels
from training.pretrain.defects import DEFECTS, MISPLACED, photograph, photograph_defect
from training.pretrain.photograph import draw_part
from training.pretrain.product import IGNORED, Library, draw_product

CELL = 16  # pixels
# Shares of a cell: from the first on a change counts, up to the second none does.
CHANGED, TOUCHED = 0.1, 0.01
# Share of a cell that one material must fill to be its name.
FILLED = 0.75


@dataclass(frozen=True, eq=False)
class Episode:
    """`images` (N, side, side, 3), the first `references` of which are good parts to remember.

    For each cell, (N, side / 16, side / 16): `kinds`, its material; `changed`, 1 where a defect is
    and 0 where none is. Both are IGNORED where it is neither here nor there.
    """

    images: Pixels
    references: int
    kinds: NDArray[np.int64]
    changed: NDArray[np.int64]


@dataclass(frozen=True)
class EpisodeSize:
    """Of an episode: how many images to remember, other good ones, and defective ones; pixels."""

    references: int = 8
    good: int = 3
    defective: int = 5
    side: int = 128


def draw_episode(
    library: Library,
    size: EpisodeSize,
    rng: np.random.Generator,
) -> Episode:
    """One product, its parts, and defects on some of them."""
    product = draw_product(library, rng)
    names = (*DEFECTS, *MISPLACED)
    images, shown, changes = [], [], []
    for _ in range(size.references + size.good):
        image, seen = photograph(product, draw_part(product, rng), size.side)
        images.append(image)
        shown.append(seen)
        changes.append(np.zeros(seen.shape, bool))
    for _ in range(size.defective):
        part, name = draw_part(product, rng), names[rng.integers(len(names))]
        image, changed = photograph_defect(product, part, size.side, name, rng)
        images.append(image)
        shown.append(np.full(changed.shape, IGNORED, np.int64))
        changes.append(changed)
    share = _cells(np.stack(changes).astype(np.float32)).mean(-1)
    changed = np.where(share >= CHANGED, 1, np.where(share <= TOUCHED, 0, IGNORED))
    return Episode(np.stack(images), size.references, _names(np.stack(shown)), changed)


def _cells(maps: NDArray[np.generic]) -> NDArray[np.generic]:
    """(N, H, W) to (N, H / 16, W / 16, 256)."""
    count, height, width = maps.shape
    split = maps.reshape(count, height // CELL, CELL, width // CELL, CELL)
    return split.transpose(0, 1, 3, 2, 4).reshape(count, height // CELL, width // CELL, -1)


def _names(shown: NDArray[np.int64]) -> NDArray[np.int64]:
    """The material that fills each cell, if one does."""
    cells = _cells(shown)
    middle = np.sort(cells, axis=-1)[
        ..., cells.shape[-1] // 2
    ]  # what fills over half is the median
    filled = (cells == middle[..., None]).mean(-1) >= FILLED
    return np.asarray(np.where(filled, middle, IGNORED))
