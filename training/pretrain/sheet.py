"""A contact sheet of what is drawn: patterns, shapes, and products with defects."""

import cv2
import numpy as np

from models.image import Pixels
from training.pretrain.defects import DEFECTS, MISPLACED, photograph, photograph_defect
from training.pretrain.patterns import PATTERNS
from training.pretrain.photograph import draw_part
from training.pretrain.product import Library, draw_library, draw_product
from training.pretrain.shapes import SHAPES

_TILE = 128  # pixels
_COLUMNS = 12
_EDGE = ((3, 0), (3, 0), (0, 0))
_PRODUCTS = 10


def draw_sheet(seed: int) -> Pixels:
    """Rows of pictures: a family each of patterns, a kind each of shapes, then a product each.

    Of a product, first four good parts, then defective ones beside what counts as changed.
    """
    library = draw_library(seed, families=tuple(PATTERNS), materials=_COLUMNS, shapes=_COLUMNS)
    rows = [
        [_grey(128 + 45 * m.height[:_TILE, :_TILE]) for m in library.materials[i : i + _COLUMNS]]
        for i in range(0, len(library.materials), _COLUMNS)
    ]
    for i in range(0, _COLUMNS * len(SHAPES), _COLUMNS):
        rows.append([_grey(255 * height) for _, height in library.shapes[i : i + _COLUMNS]])
    rows += [_product(library, np.random.default_rng([seed, 2, n])) for n in range(_PRODUCTS)]
    lines = [np.hstack([np.pad(_fit(image), _EDGE, constant_values=255) for image in row])
             for row in rows]  # fmt: skip
    return np.vstack(lines)


def _product(library: Library, rng: np.random.Generator) -> list[Pixels]:
    product = draw_product(library, rng)
    row = [photograph(product, draw_part(product, rng), _TILE) for _ in range(4)]
    kinds = (*DEFECTS, *MISPLACED)
    while len(row) < _COLUMNS:
        kind = kinds[rng.integers(len(kinds))]
        image, changed = photograph_defect(product, draw_part(product, rng), _TILE, kind, rng)
        if changed.sum() < 20:
            continue
        around = cv2.dilate(changed.astype(np.uint8), np.ones((5, 5), np.uint8))
        outline = cv2.morphologyEx(around, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        row += [image, np.where(outline[..., None], np.array([255, 40, 40], np.uint8), image)]
    return row


def _grey(values: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> Pixels:
    grey = np.clip(values, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2)


def _fit(image: Pixels) -> Pixels:
    return np.asarray(cv2.resize(image, (_TILE, _TILE), interpolation=cv2.INTER_LINEAR), np.uint8)
