"""Photographs of drawn parts: what one part varies in, its surface, and the light on it."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from models.image import Pixels
from training.pretrain.patterns import TILE, Field
from training.pretrain.product import Layer, Product
from training.pretrain.shapes import SHAPE


@dataclass(frozen=True, eq=False)
class Part:
    """All that is random about one part and its exposure."""

    seed: int
    shift: tuple[float, float]  # of the frame
    turn: float  # radians
    zoom: float
    stretch: Field  # (n, n, 2), units
    relief: float
    exposure: tuple[float, ...]  # of red, green and blue
    azimuth: float  # radians
    slope: tuple[float, float]
    clouds: Field  # (n, n), what to add to a brightness of 1
    focus: float


@dataclass(eq=False)
class Surface:
    """What the light meets, (side, side) each; defects change it and the shading follows."""

    height: Field  # pixels
    albedo: Field  # (side, side, 3), 0..1
    gloss: Field  # 0..1


def draw_part(product: Product, rng: np.random.Generator) -> Part:
    """One more part of this product, good as it leaves the line."""
    vary = product.variation
    shift, slope = rng.normal(0, vary.shift, 2), rng.normal(0, vary.slope, 2)
    exposure = _about_one(rng, vary.exposure)
    blotches = int(rng.integers(3, 9))
    return Part(
        seed=int(rng.integers(2**31)),
        shift=(float(shift[0]), float(shift[1])),
        turn=float(rng.normal(0, vary.turn)),
        zoom=_about_one(rng, vary.zoom),
        stretch=rng.normal(0, vary.warp, (3, 3, 2)).astype(np.float32),
        relief=_about_one(rng, vary.relief),
        exposure=tuple(exposure * _about_one(rng, vary.tint) for _ in range(3)),
        azimuth=float(rng.normal(0, vary.azimuth)),
        slope=(float(slope[0]), float(slope[1])),
        clouds=rng.normal(0, vary.clouds, (blotches, blotches)).astype(np.float32),
        focus=_about_one(rng, vary.focus),
    )


def lay(product: Product, part: Part, side: int, *, without: int | None = None) -> Surface:
    """The part's surface, layer upon layer; one of them can be missing."""
    shape = (side, side)
    surface = Surface(
        np.zeros(shape, np.float32), np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32)
    )  # fmt: skip
    for number, layer in enumerate(product.layers):
        rng = np.random.default_rng([part.seed, 1, number])
        loose = rng.normal(0, product.variation.loose, 3)
        origin = rng.uniform(0, TILE, 2) * (not layer.fixed)
        if number != without:
            cover(surface, product, layer, part, loose=loose, origin=origin)
    return surface


def cover(
    surface: Surface,
    product: Product,
    layer: Layer,
    part: Part,
    *,
    loose: np.ndarray,
    origin: np.ndarray,
) -> None:
    """Lay one more layer on a surface."""
    side = len(surface.height)
    px = product.unit
    pose = part.zoom * _rotation(part.turn)
    offset = side * (0.5 + np.array(part.shift))
    frame, covered, rise = (slice(0, side),) * 2, None, None
    if layer.shape is not None:
        # From the shape's pixels to the image's: turned and placed on the part, then with it.
        zoom = layer.size * side / SHAPE * pose @ _rotation(layer.tilt + loose[2] * 5)
        centre = offset + side * pose @ (np.array(layer.centre) - 0.5 + loose[:2])
        matrix = np.column_stack([zoom, centre - zoom @ np.full(2, SHAPE / 2)])
        covered, rise = (cv2.warpAffine(plane, matrix, (side, side)) for plane in layer.shape)
        x, y, wide, high = cv2.boundingRect((covered > 0).astype(np.uint8))
        if not wide:
            return  # it lies outside of what the camera sees
        frame = slice(y, y + high), slice(x, x + wide)
        covered, rise = covered[frame], rise[frame]
    stretch = _smooth(part.stretch, side)[frame]
    height, paint = _pattern(layer, pose, offset, origin, px, px * stretch, frame)
    low, high = layer.colours
    mix = np.clip(0.5 + layer.contrast * 0.5 * paint, 0, 1)[..., None]
    albedo = low + mix * (high - low)
    raised = np.float32(layer.relief * part.relief * px) * height
    below, beside, shiny = surface.height[frame], surface.albedo[frame], surface.gloss[frame]
    if covered is None or rise is None:
        below[:], beside[:], shiny[:] = raised, albedo, layer.gloss
        return
    # What rises lies on the ground and follows it; print and inlays are level.
    ground = below + np.float32(layer.rise * px) * rise if layer.rise else 0
    below += covered * (ground + raised - below)
    beside += covered[..., None] * (albedo - beside)
    shiny += covered * (np.float32(layer.gloss) - shiny)


def shade(product: Product, part: Part, surface: Surface) -> Pixels:
    """What the camera sees, uint8 (side, side, 3)."""
    side = len(surface.height)
    slope_x = cv2.Sobel(surface.height, cv2.CV_32F, 1, 0, scale=1 / 8)
    slope_y = cv2.Sobel(surface.height, cv2.CV_32F, 0, 1, scale=1 / 8)
    steep = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    azimuth = product.azimuth + part.azimuth
    x, y = (
        math.cos(azimuth) * math.cos(product.height),
        math.sin(azimuth) * math.cos(product.height),
    )
    z = math.sin(product.height)
    facing = np.maximum((z - x * slope_x - y * slope_y) * steep, 0)
    half = math.hypot(math.hypot(x, y), z + 1)
    mirrored = np.maximum(((z + 1) - x * slope_x - y * slope_y) * steep / half, 0)
    light = product.ambient + (1 - product.ambient) * facing / z
    shine = surface.gloss * mirrored ** np.float32(24)
    image = surface.albedo * light[..., None] + np.float32(0.5) * shine[..., None]
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    falls = 1 + part.slope[0] * ramp[None, :] + part.slope[1] * ramp[:, None]
    falls -= np.float32(product.spot / 2) * (ramp[None, :] ** 2 + ramp[:, None] ** 2)
    falls += _smooth(part.clouds, side)
    image *= np.maximum(falls, 0)[..., None]
    # The camera's gain is set once for a product: by its layers, not by this part.
    gain = product.exposure / max(_brightness(product), 0.02)
    image = cv2.GaussianBlur(
        image * np.float32(gain * np.array(part.exposure)), (0, 0),
        max(product.blur * product.unit * part.focus, 0.3),
    )  # fmt: skip
    rng = np.random.default_rng([part.seed, 0])
    if product.grey:
        image = np.repeat(image.mean(2, keepdims=True), 3, 2)
    channels = 1 if product.grey else 3
    noise = rng.standard_normal((side, side, channels), np.float32)
    image = image + np.float32(product.variation.noise) * noise
    image = np.clip(image, 0, 1) ** np.float32(product.tone)
    seen: Pixels = np.round(image * 255).astype(np.uint8)
    if product.quality is None:
        return seen
    packed = cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, product.quality])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)


def _brightness(product: Product) -> float:
    """Mean grey of the layers' colours, each counted by its area."""
    grey = float(product.layers[0].colours.mean())
    for layer in product.layers[1:]:
        share = min(0.5 * layer.size**2, 0.9)
        grey += share * (float(layer.colours.mean()) - grey)
    return grey


def _pattern(
    layer: Layer,
    pose: np.ndarray,
    offset: np.ndarray,
    origin: np.ndarray,
    px: float,
    stretch: np.ndarray,
    frame: tuple[slice, slice],
) -> tuple[Field, Field]:
    """The layer's material over the frame, periodic, where the part lies."""
    # From the image's pixels to the tile's.
    matrix = layer.scale / px * np.linalg.inv(pose @ _rotation(layer.turn))
    matrix = matrix.astype(np.float32)
    rows, columns = (np.arange(side.start, side.stop, dtype=np.float32) for side in frame)
    x = stretch[..., 0] + (columns - np.float32(offset[0]))
    y = stretch[..., 1] + (rows - np.float32(offset[1]))[:, None]
    across, down = (np.float32(origin[i]) + matrix[i, 0] * x + matrix[i, 1] * y for i in range(2))
    height, paint = (
        cv2.remap(plane, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        for plane in (layer.material.height, layer.material.paint)
    )
    return np.asarray(height, np.float32), np.asarray(paint, np.float32)


def _smooth(grid: Field, side: int) -> Field:
    """Few values, over the whole frame."""
    return np.asarray(cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def _about_one(rng: np.random.Generator, deviation: float) -> float:
    return float(np.exp(rng.normal(0, deviation)))


def _rotation(angle: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])
