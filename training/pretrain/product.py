"""Products by formula: what all parts of one have in common, and what each lawfully varies in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.pretrain.patterns import PATTERNS, Field
from training.pretrain.shapes import SHAPES, Shape


@dataclass(frozen=True, eq=False)
class Material:
    """A drawn pattern: what rises, and where one colour of two is seen."""

    height: Field
    paint: Field


@dataclass(frozen=True, eq=False)
class Library:
    """Materials and shapes that products are made of: drawing them takes longer than using them."""

    materials: tuple[Material, ...]
    shapes: tuple[Shape, ...]


def draw_library(seed: int, *, families: Sequence[str], materials: int, shapes: int) -> Library:
    """So many materials of each family, and shapes of each kind."""
    places = {name: sorted(PATTERNS).index(name) for name in families}
    return Library(
        tuple(
            Material(*PATTERNS[name](np.random.default_rng([seed, 0, place, number])))
            for name, place in places.items()
            for number in range(materials)
        ),
        tuple(
            draw(np.random.default_rng([seed, 1, place, number]))
            for place, draw in enumerate(SHAPES.values())
            for number in range(shapes)
        ),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Layer:
    """A material, on all of the frame or on a shape's place. Lengths are the frame's or units."""

    material: Material
    colours: Field  # (2, 3), 0..1, between which the material's paint chooses
    contrast: float  # of the paint, 0..1
    relief: float  # units of height for a deviation of the material's
    gloss: float  # 0..1
    turn: float  # radians, of the material
    scale: float  # the material's pixels for a unit
    fixed: bool  # whether the pattern lies alike on every part
    shape: Shape | None = None
    centre: tuple[float, float] = (0.5, 0.5)
    size: float = 1.0
    tilt: float = 0.0  # radians, of the shape
    rise: float = 0.0  # units, of the shape's height


@dataclass(frozen=True)
class Variation:
    """Deviations of what good parts vary in."""

    shift: float  # of the frame
    turn: float  # radians
    loose: float  # the same for each shape alone, of the frame and in radians
    exposure: float  # of the brightness
    azimuth: float  # radians, of the light
    slope: float  # of the brightness, from one side to the other
    noise: float  # of the brightest grey


@dataclass(frozen=True, eq=False)
class Product:
    """Layers from the bottom to the top, the light, the camera, and how parts differ.

    Lengths that are no shares of the frame are in units: how fine all of it is in pixels.
    """

    layers: tuple[Layer, ...]
    variation: Variation
    azimuth: float  # radians, of the light
    height: float  # radians above the surface, of the light
    ambient: float  # share of the light that comes from everywhere
    exposure: float  # mean grey, 0..1
    blur: float  # units
    unit: float  # pixels
    grey: bool
    strange: tuple[Material, ...]  # what does not belong there


def draw_product(library: Library, rng: np.random.Generator) -> Product:
    """A surface of one or two materials, or things on a ground that is mostly plain."""
    surface = rng.random() < 0.5
    layers = [_layer(library, rng, plain=not surface and rng.random() < 0.7)]
    if not surface or rng.random() < 0.3:
        layers += [_thing(library, rng) for _ in range(1 if surface else rng.integers(1, 7))]
    jitter = rng.choice([0.2, 1.0, 3.0])
    return Product(
        tuple(layers),
        Variation(
            shift=0.006 * jitter,
            turn=math.pi if rng.random() < 0.1 else 0.015 * jitter,
            loose=rng.choice([0.0, 0.0, 0.02]),
            exposure=rng.uniform(0.01, 0.08),
            azimuth=rng.uniform(0.02, 0.2),
            slope=rng.uniform(0.0, 0.12),
            noise=np.exp(rng.uniform(math.log(0.003), math.log(0.03))),
        ),
        azimuth=rng.uniform(0, 2 * math.pi),
        height=rng.uniform(0.4, 1.3),
        ambient=rng.uniform(0.2, 0.7),
        exposure=rng.uniform(0.2, 0.65),
        blur=rng.uniform(0.3, 1.2),
        unit=float(np.exp(rng.uniform(math.log(0.5), math.log(1.2)))),
        grey=bool(rng.random() < 0.4),
        strange=tuple(library.materials[i] for i in rng.integers(len(library.materials), size=2)),
    )


def _layer(library: Library, rng: np.random.Generator, *, plain: bool = False) -> Layer:
    colours = rng.uniform(0.05, 0.95, (2, 3)) ** rng.uniform(0.7, 1.8)
    if rng.random() < 0.5:  # mostly one hue
        colours = colours.mean(1, keepdims=True) + 0.2 * (colours - colours.mean(1, keepdims=True))
    faint = 0.05 if plain else 1.0
    return Layer(
        library.materials[rng.integers(len(library.materials))],
        np.asarray(colours, np.float32),
        contrast=faint * rng.uniform(0, 1) * (rng.random() < 0.8),
        relief=faint * rng.uniform(0.1, 1.2),
        gloss=rng.uniform(0, 1) ** 2,
        turn=rng.choice([0, math.pi / 2, rng.uniform(0, 2 * math.pi)]),
        scale=np.exp(rng.uniform(math.log(0.4), math.log(1.3))),
        fixed=bool(rng.random() < 0.15),
    )  # fmt: skip


def _thing(library: Library, rng: np.random.Generator) -> Layer:
    ground = _layer(library, rng, plain=rng.random() < 0.4)
    x, y = rng.uniform(0.12, 0.88, 2)
    return replace(
        ground,
        fixed=bool(rng.random() < 0.4),
        shape=library.shapes[rng.integers(len(library.shapes))],
        centre=(float(x), float(y)),
        size=float(np.exp(rng.uniform(math.log(0.15), math.log(0.8)))),
        tilt=rng.choice([0.0, rng.uniform(0, 2 * math.pi)]),
        rise=rng.choice([0.0, rng.uniform(0.5, 8), -rng.uniform(0.5, 4)]),
    )
