"""Surfaces by formula, a family each: what a part is made of, before light falls on it.

Every function draws one material as two periodic maps: its height, and how much of its second
colour lies where. Both are float32 (TILE, TILE) of mean 0 and deviation 1. Print alone ends
where its sheet does.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import cKDTree

Field = NDArray[np.float32]
Relief = tuple[Field, Field]

TILE = 256  # pixels


def spectrum(rng: np.random.Generator) -> Relief:
    """Noise of a power law, in a band or open, along one direction or all."""
    frequency, angle = _plane()
    decay = frequency ** -rng.uniform(0.5, 2.2)
    if rng.random() < 0.5:
        centre = np.exp(rng.uniform(math.log(6), math.log(60)))
        decay = np.exp(-((np.log(frequency / centre) / rng.uniform(0.15, 0.6)) ** 2))
    if rng.random() < 0.4:
        narrow = rng.uniform(1, 12)
        decay = decay * np.exp(narrow * (np.cos(2 * (angle - rng.uniform(0, math.pi))) - 1))
    height = _noise(rng, decay)
    if rng.random() < 0.3:
        height = np.abs(height)  # creases, as leather has them
    elif rng.random() < 0.3:
        height = np.tanh(3 * height)
    return _relief(height, _noise(rng, decay) if rng.random() < 0.3 else height)


def brushed(rng: np.random.Generator) -> Relief:
    """Tool marks: fine across, long along one of the tile's axes, some deeper than others."""
    length, width = np.exp(rng.uniform(np.log([8, 0.6]), np.log([60, 2.5])))
    marks = rng.standard_normal((TILE, TILE)) * np.exp(rng.normal(0, 0.6, (TILE, 1)))
    height = _blur(marks.astype(np.float32), (float(length), float(width)))
    return _relief(height, height)


def cast(rng: np.random.Generator) -> Relief:
    """Grains or pits of many sizes on an uneven ground, as sand leaves them, or peening."""
    ground = _noise(rng, _plane()[0] ** -rng.uniform(1, 2))
    grains = np.zeros((TILE, TILE), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        size, density = np.exp(rng.uniform(np.log([0.8, 0.002]), np.log([5, 0.05])))
        seeds = (rng.random((TILE, TILE)) < density / size).astype(np.float32)
        grains += _unit(_blur(seeds * rng.uniform(0.4, 1, seeds.shape), (size, size)))
    sign = rng.choice([-1, 1])
    return _relief(rng.uniform(0, 0.7) * ground + sign * grains, sign * grains)


def leaves(rng: np.random.Generator) -> Relief:
    """Shapes that fell on each other, sizes after a power law (Matheron's dead leaves)."""
    height, paint = np.zeros((2, TILE, TILE), np.float32)
    smallest = rng.uniform(2, 8)
    corners, slim = int(rng.choice([3, 4, 5, 24])), rng.uniform(0.25, 1)
    for _ in range(int(rng.uniform(300, 1500))):
        size = min(smallest * rng.random() ** (-1 / 2), TILE / 5)
        turn, phase = rng.uniform(0, 2 * math.pi, 2)
        around = phase + np.arange(corners) * 2 * math.pi / corners
        outline = size * np.stack([np.cos(around), slim * np.sin(around)], 1) @ _rotation(turn)
        values = rng.standard_normal(2)
        for at in _wrapped(rng.uniform(0, TILE, 2), size):
            points = np.round((outline + at) * 16).astype(np.int32)
            cv2.fillPoly(height, [points], float(values[0]), cv2.LINE_8, 4)
            cv2.fillPoly(paint, [points], float(values[1]), cv2.LINE_8, 4)
    return _relief(_blur(height, (0.7, 0.7)), _blur(paint, (0.5, 0.5)))


def voronoi(rng: np.random.Generator) -> Relief:
    """Cells around points, from a lattice to disorder: cobbles, foam, cracked glaze, crystals."""
    side = int(rng.integers(4, 22))
    grid = np.stack(np.meshgrid(*[np.arange(side) + 0.5] * 2), -1).reshape(-1, 2)
    points = ((grid + rng.uniform(0, 1) * rng.uniform(-0.5, 0.5, grid.shape)) / side) % 1
    shifts = np.stack(np.meshgrid(*[(-1, 0, 1)] * 2), -1).reshape(-1, 2)
    tree = cKDTree((points[None] + shifts[:, None]).reshape(-1, 2))
    place = np.stack(np.meshgrid(*[(np.arange(TILE) + 0.5) / TILE] * 2), -1)
    distances, numbers = tree.query(place, k=2)
    near, which = np.asarray(distances), np.asarray(numbers)
    border = (near[..., 1] - near[..., 0]) * side
    cell = rng.standard_normal(len(points))[which[..., 0] % len(points)]
    match rng.integers(4):
        case 0:
            height = np.minimum(border / rng.uniform(0.05, 0.5), 1)
        case 1:
            height = near[..., 0]
        case 2:
            height = cell
        case _:
            height = np.sqrt(border)
    return _relief(_blur(height, (0.7, 0.7)), cell if rng.random() < 0.5 else height)


def reaction(rng: np.random.Generator) -> Relief:
    """Spots, stripes and labyrinths of the Swift-Hohenberg equation, solved by Fourier steps."""
    frequency, angle = _plane()
    ratio = frequency / np.exp(rng.uniform(math.log(8), math.log(40)))
    if rng.random() < 0.4:
        ratio = ratio * (1 + rng.uniform(0.1, 0.5) * np.cos(2 * (angle - rng.uniform(0, math.pi))))
    push, bias, step = rng.uniform(0.1, 0.6), rng.uniform(-1.2, 1.2), 0.5
    field = 0.1 * rng.standard_normal((TILE, TILE))
    damping = 1 + step * np.minimum((1 - ratio**2) ** 2, 1e4) - step * push
    for _ in range(int(rng.integers(40, 120))):
        change = np.fft.rfft2(field + step * (bias * field**2 - field**3))
        field = np.clip(np.fft.irfft2(change / damping, s=field.shape), -3, 3)
    return _relief(field, field)


def weave(rng: np.random.Generator) -> Relief:
    """Threads over and under each other: plain, twill or satin, woven close or wide."""
    threads = int(rng.choice([8, 12, 16, 20, 24, 32]))
    over, jump = int(rng.choice([1, 2])), int(rng.choice([1, 2]))
    period = 2 * over
    u, v = np.meshgrid(*[(np.arange(TILE) + 0.5) * threads / TILE] * 2)
    wavy = _noise(rng, _plane()[0] ** -2.0) * rng.uniform(0, 0.12)
    u, v = u + wavy, v + wavy.T
    column, row = np.floor(u).astype(int), np.floor(v).astype(int)
    warp_on_top = (column + jump * row) % period < over
    width = rng.uniform(0.6, 1.0)
    warp = np.sqrt(np.maximum(width**2 - (2 * (u % 1) - 1) ** 2, 0))
    weft = np.sqrt(np.maximum(width**2 - (2 * (v % 1) - 1) ** 2, 0))
    bend = 0.4 * np.sin(math.pi * (v if over == 1 else v / over)) ** 2
    height = np.where(warp_on_top, np.maximum(warp + bend, weft * 0.4),
                      np.maximum(weft + 0.4 - bend, warp * 0.4))  # fmt: skip
    fibre = _noise(rng, np.where(_plane()[0] > 20, 1.0, 0.0)) * rng.uniform(0, 0.15)
    paint = np.where(warp_on_top & (warp > 0), 1.0, -1.0) if rng.random() < 0.4 else height
    return _relief(height + fibre, paint)


def lattice(rng: np.random.Generator) -> Relief:
    """Holes, pins or ridges in rows: perforated sheet, knurling, grids, tread."""
    side = int(rng.integers(5, 24))
    u, v = np.meshgrid(*[(np.arange(TILE) + 0.5) * side / TILE] * 2)
    if rng.random() < 0.5:
        u = u + 0.5 * (np.floor(v) % 2) if side % 2 == 0 else u
    x, y = 2 * (u % 1) - 1, 2 * (v % 1) - 1
    power = rng.choice([1.0, 2.0, 6.0])
    away = (np.abs(x) ** power + np.abs(y) ** power) ** (1 / power)
    edge, size = rng.uniform(0.05, 0.4), rng.uniform(0.35, 0.95)
    height = np.clip((size - away) / edge, 0, 1) * rng.choice([-1, 1])
    if rng.random() < 0.25:
        height = np.maximum(np.abs(x), np.abs(y)) ** rng.uniform(2, 8)
    rough = _noise(rng, _plane()[0] ** -1.0) * rng.uniform(0, 0.1)
    return _relief(height + rough, height)


def fibres(rng: np.random.Generator) -> Relief:
    """Threads that lie as they fell: felt, paper, carpet, hair."""
    height = np.zeros((TILE, TILE), np.float32)
    paint = np.zeros_like(height)
    main, spread = rng.uniform(0, math.pi), rng.choice([0.15, 0.6, 3.0])
    length, thick = rng.uniform(10, 60), int(rng.integers(1, 4))
    for _ in range(int(rng.uniform(300, 1200))):
        turns = main + rng.normal(0, spread) + np.cumsum(rng.normal(0, 0.25, 8))
        steps = np.stack([np.cos(turns), np.sin(turns)], 1) * length / 8
        line = np.cumsum(steps, 0)
        values = rng.standard_normal(2)
        for at in _wrapped(rng.uniform(0, TILE, 2), length):
            points = [np.round((line + at) * 16).astype(np.int32)]
            cv2.polylines(height, points, False, float(values[0]), thick, cv2.LINE_8, 4)
            cv2.polylines(paint, points, False, float(values[1]), thick, cv2.LINE_8, 4)
    return _relief(_blur(height, (0.7, 0.7)), _blur(paint, (0.6, 0.6)))


def grain(rng: np.random.Generator) -> Relief:
    """Rings and layers that something pushed: wood, marble, agate."""
    u, v = np.meshgrid(*[np.arange(TILE) * 2 * math.pi / TILE] * 2)
    push = _noise(rng, _plane()[0] ** -rng.uniform(1.6, 2.6))
    stretch = rng.uniform(0.2, 2.0)
    phase = int(rng.integers(3, 20)) * u + int(rng.integers(-3, 4)) * v + stretch * 3 * push
    height = np.sin(phase) + rng.uniform(0, 0.5) * np.sin(3 * phase + push)
    pores = _blur(rng.standard_normal((TILE, TILE)).astype(np.float32), (0.7, 6.0))
    return _relief(height + rng.uniform(0, 0.5) * _unit(pores), height)


def lettering(rng: np.random.Generator) -> Relief:
    """Print in rows: letters, numbers and marks of one size and weight."""
    rows = int(rng.choice([4, 6, 8, 10, 13, 16]))
    pitch = TILE / rows
    sheet = Image.new("L", (TILE, TILE))
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(pitch * rng.uniform(0.7, 1.05))
    signs = "ABCDEFGHIKLMNOPRSTUVXYZ0123456789abcdefghkmnopqrstuvw-+/#=&"
    for row in range(rows):
        line = "".join(rng.choice(list(signs), 60))
        pen.text((-pitch * rng.random(), row * pitch), line, 255, font,
                 stroke_width=int(rng.integers(0, 2)))  # fmt: skip
    ink = _blur(np.asarray(sheet, np.float32), (0.6, 0.6))
    return _relief(ink * rng.choice([-1, 1]), ink)


PATTERNS: dict[str, Callable[[np.random.Generator], Relief]] = {
    family.__name__: family
    for family in (
        spectrum, brushed, cast, leaves, voronoi, reaction, weave, lattice, fibres, grain,
        lettering,
    )
}  # fmt: skip


def _plane() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cycles per tile and direction of every coefficient of a real Fourier transform."""
    y, x = np.meshgrid(np.fft.fftfreq(TILE, 1 / TILE), np.fft.rfftfreq(TILE, 1 / TILE),
                       indexing="ij")  # fmt: skip
    return np.maximum(np.hypot(x, y), 1.0), np.arctan2(y, x)


def _noise(rng: np.random.Generator, amplitude: NDArray[np.floating]) -> Field:
    """Gaussian noise of this spectrum."""
    white = np.fft.rfft2(rng.standard_normal((TILE, TILE)))
    return _unit(np.fft.irfft2(white * amplitude, s=(TILE, TILE)))


def _blur(field: NDArray[np.floating], sigma: tuple[float, float]) -> Field:
    """Smooth over the tile's borders; `sigma` in pixels along x and y."""
    y, x = np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None]
    kernel = np.exp(-2 * math.pi**2 * ((sigma[0] * x) ** 2 + (sigma[1] * y) ** 2))
    return np.asarray(np.fft.irfft2(np.fft.rfft2(field) * kernel, s=field.shape), np.float32)


def _unit(field: NDArray[np.floating]) -> Field:
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), np.float32)


def _relief(height: NDArray[np.floating], paint: NDArray[np.floating]) -> Relief:
    return _unit(height), _unit(paint)


def _rotation(angle: float) -> NDArray[np.float64]:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def _wrapped(at: NDArray[np.float64], reach: float) -> list[NDArray[np.float64]]:
    """Every place at which something this large must be drawn for the tile to be periodic."""
    shifts = [at + np.array([x, y]) for x in (-TILE, 0, TILE) for y in (-TILE, 0, TILE)]
    return [p for p in shifts if (p > -2 * reach).all() and (p < TILE + 2 * reach).all()]
