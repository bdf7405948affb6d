"""Things that lie in an image: outlines by formula, letters, and fractals.

Every function draws one shape as two maps, float32 (SHAPE, SHAPE) in 0..1: what it covers, and
how high it rises there.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.pretrain.patterns import Field

Shape = tuple[Field, Field]

SHAPE = 96  # pixels
_POINTS = 40_000  # of a fractal's orbit
_MARCH = 40  # steps of a ray


def polygon(rng: np.random.Generator) -> Shape:
    """Discs, plates, gears, stars and rings, flat, bevelled or domed."""
    x, y = _box()
    away, angle = np.hypot(x, y), np.arctan2(y, x)
    corners = int(rng.integers(3, 24))
    match rng.integers(4):
        case 0:  # a superellipse
            power, slim = rng.uniform(1.5, 8), rng.uniform(0.2, 1)
            radius = (np.abs(x) ** power + np.abs(y / slim) ** power) ** (1 / power) / 0.9
        case 1:  # a gear or a star
            deep, sharp = rng.uniform(0.05, 0.4), rng.uniform(0.5, 5)
            teeth = np.tanh(sharp * np.cos(corners * angle)) / math.tanh(sharp)
            radius = away / (0.9 - deep / 2 + deep / 2 * teeth)
        case 2:  # a polygon
            step = 2 * math.pi / corners
            radius = away * np.cos((angle % step) - step / 2) / 0.85
        case _:  # a lobed blob
            radius = away / (0.6 * lobed(angle, rng))
    hole = rng.uniform(0.2, 0.8) if rng.random() < 0.35 else 0.0
    depth = np.minimum(1 - radius, radius - hole if hole else 1.0)
    bevel = rng.choice([0.04, 0.15, 0.6])
    height = np.sqrt(np.clip(depth / bevel, 0, 1))
    return _covered(depth * SHAPE / 2 + 0.5), np.asarray(height, np.float32)


def letter(rng: np.random.Generator) -> Shape:
    """One to four signs, printed, raised or engraved."""
    count = int(rng.integers(1, 5))
    text = "".join(rng.choice(list("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789#&@%+?!"), count))
    sheet = Image.new("L", (4 * SHAPE, 4 * SHAPE))
    size = 4 * SHAPE * 1.1 / max(1.3, count * 0.75)
    ImageDraw.Draw(sheet).text(
        (2 * SHAPE, 2 * SHAPE), text, 255, ImageFont.load_default(size), "mm",
        stroke_width=int(rng.uniform(0, 10)),
    )  # fmt: skip
    ink = cv2.resize(np.asarray(sheet), (SHAPE, SHAPE), interpolation=cv2.INTER_AREA)
    covered = np.asarray(ink, np.float32) / np.float32(255)
    return covered, np.asarray(cv2.GaussianBlur(covered, (0, 0), 1.0), np.float32)


def orbit(rng: np.random.Generator) -> Shape:
    """The attractor of a few affine maps (an iterated function system, as FractalDB draws them)."""
    for _ in range(50):
        maps = int(rng.integers(2, 5))
        matrices = rng.uniform(-1, 1, (maps, 2, 2))
        norms = np.linalg.norm(matrices, 2, axis=(1, 2))
        matrices *= (rng.uniform(0.4, 0.85, maps) / norms)[:, None, None]
        shifts = rng.uniform(-1, 1, (maps, 2))
        points = np.zeros((_POINTS // 20, 2))
        kept = []
        for step in range(32):
            which = rng.integers(maps, size=len(points))
            points = np.einsum("nij,nj->ni", matrices[which], points) + shifts[which]
            if step >= 12:
                kept.append(points)
        cloud = np.concatenate(kept)
        low, high = np.quantile(cloud, [0.005, 0.995], axis=0)
        place = (cloud - low) / max(float((high - low).max()), 1e-9) * (SHAPE * 0.9)
        place += (SHAPE - place.max(0)) / 2
        inside = ((place >= 0) & (place < SHAPE)).all(1)
        columns, rows = place[inside].astype(int).T
        counts = np.zeros((SHAPE, SHAPE), np.float32)
        np.add.at(counts, (rows, columns), 1)
        covered = np.minimum(cv2.GaussianBlur(counts, (0, 0), 0.8) * 1.5, 1)
        if 0.08 < covered.mean() < 0.7:  # neither dust nor a slab
            break
    height = np.log1p(cv2.GaussianBlur(counts, (0, 0), 1.2))
    return np.asarray(covered, np.float32), np.asarray(height / height.max(), np.float32)


def bulb(rng: np.random.Generator) -> Shape:
    """A Mandelbulb seen from somewhere, by rays that its distance estimate steps along."""
    power = float(rng.integers(2, 11))
    shift = rng.normal(0, 0.25, 3) * (rng.random() < 0.7)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    x, y = _box()
    rays = np.stack([1.35 * x, 1.35 * y, np.full_like(x, 1.6)], -1).reshape(-1, 3)
    depth = np.zeros(len(rays))
    alive = np.hypot(rays[:, 0], rays[:, 1]) < 1.35
    for _ in range(_MARCH):
        where = np.flatnonzero(alive)
        if not len(where):
            break
        at = rays[where] - np.array([0, 0, 1.0]) * depth[where, None]
        gap = _bulb_distance(at @ turn.T, power, shift)
        depth[where] += np.maximum(gap, 0.004)
        alive[where] = (gap > 0.008) & (depth[where] < 3.2)
    hit = ((depth > 0) & (depth < 3.2)).reshape(SHAPE, SHAPE).astype(np.float32)
    height = np.where(hit > 0, 1 - depth.reshape(SHAPE, SHAPE) / 3.2, 0)
    top = max(float(height.max()), 1e-6)
    covered = np.asarray(cv2.GaussianBlur(hit, (0, 0), 0.5), np.float32)
    return covered, np.asarray(height / top, np.float32)


SHAPES: dict[str, Callable[[np.random.Generator], Shape]] = {
    shape.__name__: shape for shape in (polygon, letter, orbit, bulb)
}


def lobed(angle: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.floating]:
    """The radius, some 1, of a random rounded outline in each direction."""
    waves = [
        rng.normal(0, 0.3 / k) * np.cos(k * angle + rng.uniform(0, 2 * math.pi))
        for k in range(2, 6)
    ]
    radius: NDArray[np.floating] = np.maximum(1 + np.sum(waves, axis=0), 0.2)
    return radius


def _bulb_distance(
    points: NDArray[np.float64], power: float, shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far the set is at least from each point (N, 3): Hart's estimate after few iterations."""
    z = points.copy()
    growth = np.ones(len(points))
    radius = np.linalg.norm(z, axis=1)
    for _ in range(5):
        inside = radius < 2
        if not inside.any():
            break
        r = np.maximum(radius[inside], 1e-9)
        polar = np.arccos(np.clip(z[inside, 2] / r, -1, 1)) * power
        around = np.arctan2(z[inside, 1], z[inside, 0]) * power
        growth[inside] = r ** (power - 1) * power * growth[inside] + 1
        grown = r**power
        z[inside] = points[inside] + shift + grown[:, None] * np.stack(
            [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], 1
        )  # fmt: skip
        radius[inside] = np.linalg.norm(z[inside], axis=1)
    r = np.maximum(radius, 1e-9)
    return np.asarray(0.5 * np.log(np.maximum(r, 1.0000001)) * r / growth)


def _box() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y of every pixel, from -1 to 1."""
    side = (np.arange(SHAPE) + 0.5) * 2 / SHAPE - 1
    x, y = np.meshgrid(side, side)
    return x, y


def _covered(values: NDArray[np.floating]) -> Field:
    return np.asarray(np.clip(values, 0, 1), np.float32)
