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
    zoom: float  # of the size, in logarithms
    warp: float  # units, by which what lies on a part is stretched
    relief: float  # of every height, in logarithms
    exposure: float  # of the brightness
    tint: float  # of each colour's brightness
    azimuth: float  # radians, of the light
    slope: float  # of the brightness, from one side to the other
    clouds: float  # of the brightness, from place to place
    focus: float  # of the blur, in logarithms
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
    spot: float  # how much darker the frame's corners are than its middle
    exposure: float  # mean grey, 0..1
    blur: float  # units
    tone: float  # power of the camera's curve
    quality: int | None  # of the JPEG that the camera makes, if it does
    unit: float  # pixels
    grey: bool
    strange: tuple[Material, ...]  # what does not belong there


def draw_product(library: Library, rng: np.random.Generator) -> Product:
    """A surface of one or two materials, or things on a ground that is mostly plain."""
    surface = rng.random() < 0.5
    layers = [_layer(library, rng, plain=not surface and rng.random() < 0.7)]
    if not surface or rng.random() < 0.3:
        layers += [_thing(library, rng) for _ in range(1 if surface else rng.integers(1, 7))]
    jitter = rng.choice([0.2, 1.0, 3.0, 10.0])
    return Product(
        tuple(layers),
        Variation(
            shift=0.006 * jitter,
            turn=math.pi if rng.random() < 0.1 else 0.015 * jitter,
            loose=rng.choice([0.0, 0.0, 0.02]),
            zoom=0.005 * jitter,
            warp=_seldom(rng, 8.0),
            relief=_seldom(rng, 0.4),
            exposure=0.01 + _seldom(rng, 0.2),
            tint=_seldom(rng, 0.05),
            azimuth=rng.uniform(0.02, 0.2),
            slope=_seldom(rng, 0.25),
            clouds=_seldom(rng, 0.2),
            focus=_seldom(rng, 0.4),
            noise=np.exp(rng.uniform(math.log(0.003), math.log(0.03))),
        ),
        azimuth=rng.uniform(0, 2 * math.pi),
        height=rng.uniform(0.4, 1.3),
        ambient=rng.uniform(0.2, 0.7),
        spot=_seldom(rng, 0.6),
        exposure=rng.uniform(0.2, 0.65),
        blur=rng.uniform(0.3, 1.2),
        tone=float(np.exp(rng.uniform(-0.4, 0.4))),
        quality=int(rng.integers(50, 96)) if rng.random() < 0.3 else None,
        unit=float(np.exp(rng.uniform(math.log(0.5), math.log(1.2)))),
        grey=bool(rng.random() < 0.4),
        strange=tuple(library.materials[i] for i in rng.integers(len(library.materials), size=2)),
    )


def _seldom(rng: np.random.Generator, most: float) -> float:
    """Mostly little, sometimes much."""
    return float(most * rng.random() ** 2)


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
        size=float(np.exp(rng.uniform(math.log(0.15), math.log(1.3)))),
        tilt=rng.choice([0.0, rng.uniform(0, 2 * math.pi)]),
        rise=rng.choice([0.0, rng.uniform(0.5, 8), -rng.uniform(0.5, 4)]),
    )
