"""Defects on drawn parts: what happens to a surface, or to the things that should lie on it.

What counts as changed is measured on the photographs with and without it, not on what was meant.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from models.image import Pixels
from training.pretrain.patterns import TILE, Field
from training.pretrain.photograph import Part, Surface, cover, lay, shade
from training.pretrain.product import Layer, Product
from training.pretrain.shapes import SHAPE, lobed

# Of 255: below is what noise does, too.
VISIBLE = 10

Spoil = Callable[[Surface, np.random.Generator, float], None]


def scratch(surface: Surface, rng: np.random.Generator, px: float) -> None:
    """A thin line, straight or bent, cut in or rubbed on."""
    line = _path(surface, rng, width=rng.uniform(1, 4) * px, bend=rng.choice([0.02, 0.3]))
    surface.height += line * np.float32(rng.normal(0, 2) * px)
    _tint(surface, line, rng.uniform(0, 1), rng)


def crack(surface: Surface, rng: np.random.Generator, px: float) -> None:
    """A jagged dark line."""
    line = _path(surface, rng, width=rng.uniform(1, 3.5) * px, bend=0.9)
    surface.height -= line * np.float32(rng.uniform(0.5, 3) * px)
    surface.albedo *= 1 - line[..., None] * np.float32(rng.uniform(0.3, 0.9))
    surface.gloss *= 1 - line


def dent(surface: Surface, rng: np.random.Generator, px: float) -> None:
    """A hollow or a bump that only the light shows."""
    blob = cv2.GaussianBlur(_blotch(surface, rng, px, 6, 40), (0, 0), rng.uniform(1, 6) * px)
    surface.height += blob * np.float32(rng.choice([-1, 1]) * rng.uniform(2, 10) * px)


def hole(surface: Surface, rng: np.random.Generator, px: float) -> None:
    """One or a few pores."""
    for _ in range(int(rng.integers(1, 5))):
        blob = _blotch(surface, rng, px, 2, 14)
        surface.height -= blob * np.float32(rng.uniform(1, 6) * px)
        surface.albedo *= 1 - blob[..., None] * np.float32(rng.uniform(0.2, 0.95))
        surface.gloss *= 1 - blob


def stain(surface: Surface, rng: np.random.Generator, px: float) -> None:
    """Oil, paint or rust: another colour, with a soft edge or a sharp one."""
    blob = _blotch(surface, rng, px, 5, 60)
    soft = np.asarray(cv2.GaussianBlur(blob, (0, 0), rng.uniform(0.5, 5) * px), np.float32)
    _tint(surface, soft, rng.uniform(0.15, 0.9), rng)


def smear(surface: Surface, rng: np.random.Generator, px: float) -> None:
    """Worn flat: relief and print are gone."""
    blob = cv2.GaussianBlur(_blotch(surface, rng, px, 10, 60), (0, 0), 1.0)
    wide = rng.uniform(2, 8) * px
    for plane in (surface.height, surface.gloss):
        plane += blob * (cv2.GaussianBlur(plane, (0, 0), wide) - plane)
    surface.albedo += blob[..., None] * (
        cv2.GaussianBlur(surface.albedo, (0, 0), wide) - surface.albedo
    )


def haze(surface: Surface, rng: np.random.Generator, px: float) -> None:
    """A wide region that is a little brighter, darker, rougher or more matt."""
    blob = cv2.GaussianBlur(_blotch(surface, rng, px, 40, 140), (0, 0), rng.uniform(2, 12) * px)
    surface.albedo *= 1 + blob[..., None] * np.float32(rng.choice([-1, 1]) * rng.uniform(0.12, 0.5))
    surface.height *= 1 + blob * np.float32(rng.choice([-0.7, 0.0, 1.0]))
    surface.gloss += blob * np.float32(rng.uniform(0, 1)) * (1 - surface.gloss)


def moved(surface: Surface, rng: np.random.Generator, px: float) -> None:
    """A patch that shows what lies elsewhere, turned, as where a thread or a print slipped."""
    blob = (_blotch(surface, rng, px, 8, 50) > 0.5).astype(np.float32)
    side = len(surface.height)
    centre, angle = (side / 2, side / 2), float(rng.uniform(20, 340))
    turn = np.asarray(cv2.getRotationMatrix2D(centre, angle, 1.0), np.float64)
    turn[:, 2] += rng.uniform(-0.3, 0.3, 2) * side

    def elsewhere(plane: Field) -> Field:
        return np.asarray(cv2.warpAffine(plane, turn, (side, side), borderMode=cv2.BORDER_REFLECT))

    surface.height += blob * (elsewhere(surface.height) - surface.height)
    surface.albedo += blob[..., None] * (elsewhere(surface.albedo) - surface.albedo)
    surface.gloss += blob * (elsewhere(surface.gloss) - surface.gloss)


DEFECTS: dict[str, Spoil] = {
    spoil.__name__: spoil for spoil in (scratch, crack, dent, hole, stain, smear, haze, moved)
}
# What is wrong with the things that lie there, rather than with a surface.
MISPLACED = ("missing", "strange", "shifted", "swapped")


def photograph(product: Product, part: Part, side: int) -> Pixels:
    """A good part, uint8 (side, side, 3)."""
    return shade(product, part, lay(product, part, side))


def photograph_defect(
    product: Product, part: Part, side: int, kind: str, rng: np.random.Generator
) -> tuple[Pixels, np.ndarray]:
    """A defective part: uint8 (side, side, 3), and where it differs from a good one, as bool."""
    surface = lay(product, part, side)
    good = shade(product, part, surface)
    if kind in MISPLACED:
        surface = _misplaced(product, part, surface, kind, rng)
    else:
        DEFECTS[kind](surface, rng, product.unit)
    np.clip(surface.albedo, 0, 1, out=surface.albedo)
    bad = shade(product, part, surface)
    changed = np.abs(bad.astype(np.int16) - good).max(2) > VISIBLE
    return bad, changed


def _misplaced(
    product: Product, part: Part, good: Surface, kind: str, rng: np.random.Generator
) -> Surface:
    """Something is missing, lies elsewhere, is another, or does not belong there at all.

    On a bare surface nothing can be but the last, which is laid on `good` itself.
    """
    side, things = len(good.height), len(product.layers) - 1
    if kind == "strange" or not things:
        cover(good, product, _stranger(product, rng), part,
              loose=np.zeros(3), origin=rng.uniform(0, TILE, 2))  # fmt: skip
        return good
    which = 1 + int(rng.integers(things))
    if kind == "missing":
        return lay(product, part, side, without=which)
    layer = product.layers[which]
    if kind == "shifted":
        x, y = layer.centre + rng.choice([-1, 1], 2) * rng.uniform(0.05, 0.2, 2)
        other = replace(layer, centre=(x, y), tilt=layer.tilt + rng.normal(0, 0.5))
    else:
        other = replace(
            layer, material=product.strange[1], colours=layer.colours[::-1].copy(),
            contrast=1.0, relief=1.0,
        )  # fmt: skip
    layers = (*product.layers[:which], other, *product.layers[which + 1 :])
    return lay(replace(product, layers=layers), part, side)


def _stranger(product: Product, rng: np.random.Generator) -> Layer:
    """Of a material that is not the product's, as one of its things or as a square."""
    thing = product.layers[int(rng.integers(len(product.layers)))]
    return replace(
        thing,
        material=product.strange[0],
        colours=np.asarray(rng.uniform(0.05, 0.95, (2, 3)), np.float32),
        contrast=float(rng.uniform(0, 1)),
        relief=float(rng.uniform(0.1, 1)),
        shape=thing.shape or (np.ones((SHAPE, SHAPE), np.float32),) * 2,
        centre=tuple(rng.uniform(0.15, 0.85, 2)),
        size=float(rng.uniform(0.05, 0.3)),
        tilt=float(rng.uniform(0, 2 * math.pi)),
        rise=float(rng.uniform(0, 5)),
    )


def _tint(surface: Surface, where: Field, strength: float, rng: np.random.Generator) -> None:
    colour = rng.uniform(0, 1, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(0, 1))
    surface.albedo += (
        np.float32(strength) * where[..., None] * (colour.astype(np.float32) - surface.albedo)
    )
    surface.gloss += where * (np.float32(rng.uniform(0, 1)) - surface.gloss)


def _path(surface: Surface, rng: np.random.Generator, *, width: float, bend: float) -> Field:
    """A line from somewhere to somewhere, 0..1."""
    side = len(surface.height)
    length = side * np.exp(rng.uniform(math.log(0.06), math.log(0.7)))
    turns = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, bend, 12))
    steps = np.stack([np.cos(turns), np.sin(turns)], 1) * length / 12
    points = np.cumsum(steps, 0)
    points += rng.uniform(0.1, 0.9, 2) * side - points.mean(0)
    drawn = np.zeros((side, side), np.uint8)
    thick = max(1, round(width))
    cv2.polylines(
        drawn, [np.round(points * 16).astype(np.int32)], False, 255, thick, cv2.LINE_AA, 4
    )
    return np.asarray(drawn, np.float32) * np.float32(min(1.0, width) / 255)


def _blotch(
    surface: Surface, rng: np.random.Generator, px: float, least: float, most: float
) -> Field:
    """A lobed spot somewhere, 0..1, `least` to `most` units of `px` pixels across."""
    side = len(surface.height)
    across = px * np.exp(rng.uniform(math.log(least), math.log(most)))
    x, y = rng.uniform(0.05, 0.95, 2) * side
    columns, rows = np.meshgrid(*[np.arange(side, dtype=np.float32)] * 2)
    turn, slim = rng.uniform(0, math.pi), rng.uniform(0.3, 1)
    u = (columns - x) * math.cos(turn) + (rows - y) * math.sin(turn)
    v = ((rows - y) * math.cos(turn) - (columns - x) * math.sin(turn)) / slim
    away, angle = np.hypot(u, v), np.arctan2(v, u)
    edge = across / 2 * lobed(angle, rng)
    return np.asarray(np.clip(edge - away + 0.5, 0, 1), np.float32)
