"""Episodes: some good parts of a drawn product to remember, and others to be judged by them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.image import Pixels
from training.pretrain.defects import DEFECTS, MISPLACED, photograph, photograph_defect
from training.pretrain.photograph import draw_part
from training.pretrain.product import Library, draw_product

CELL = 16  # pixels
# Shares of a cell: from the first on a change counts, up to the second none does.
CHANGED, TOUCHED = 0.1, 0.01
# Neither here nor there.
UNCERTAIN = -1


@dataclass(frozen=True, eq=False)
class Episode:
    """`images` (N, side, side, 3), the first `references` of which are good parts to remember.

    `changed`, (N, side / 16, side / 16), is 1 for a cell where a defect is, 0 where none is, and
    UNCERTAIN where one touches it.
    """

    images: Pixels
    references: int
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
    images, changes = [], []
    for _ in range(size.references + size.good):
        images.append(photograph(product, draw_part(product, rng), size.side))
        changes.append(np.zeros((size.side, size.side), bool))
    for _ in range(size.defective):
        part, name = draw_part(product, rng), names[rng.integers(len(names))]
        image, changed = photograph_defect(product, part, size.side, name, rng)
        images.append(image)
        changes.append(changed)
    cells = size.side // CELL
    share = np.stack(changes).reshape(len(changes), cells, CELL, cells, CELL).mean((2, 4))
    changed = np.where(share >= CHANGED, 1, np.where(share <= TOUCHED, 0, UNCERTAIN))
    return Episode(np.stack(images), size.references, changed)
