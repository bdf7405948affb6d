"""Photographs of drawn parts: what one part varies in, its surface, and the light on it."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from models.image import Pixels
from training.pretrain.patterns import TILE, Field
from training.pretrain.product import Layer, Product
from training.pretrain.shapes import SHAPE


@dataclass(frozen=True)
class Part:
    """All that is random about one part and its exposure."""

    seed: int
    shift: tuple[float, float]  # of the frame
    turn: float  # radians
    exposure: float
    azimuth: float  # radians
    slope: tuple[float, float]


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
    return Part(
        seed=int(rng.integers(2**31)),
        shift=(float(shift[0]), float(shift[1])),
        turn=float(rng.normal(0, vary.turn)),
        exposure=float(np.exp(rng.normal(0, vary.exposure))),
        azimuth=float(rng.normal(0, vary.azimuth)),
        slope=(float(slope[0]), float(slope[1])),
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
    middle = np.array([side, side]) / 2
    pose = _rotation(part.turn)
    offset = middle + side * np.array(part.shift)
    height, paint = _pattern(layer, pose, offset, origin, side, px)
    low, high = layer.colours
    mix = np.clip(0.5 + layer.contrast * 0.5 * paint, 0, 1)[..., None]
    albedo = low + mix * (high - low)
    raised = np.float32(layer.relief * px) * height
    if layer.shape is None:
        surface.height[:] = raised
        surface.albedo[:] = albedo
        surface.gloss[:] = layer.gloss
        return
    # From the shape's pixels to the image's: turned and placed on the part, then with the part.
    zoom = layer.size * side / SHAPE * pose @ _rotation(layer.tilt + loose[2] * 5)
    centre = offset + side * pose @ (np.array(layer.centre) - 0.5 + loose[:2])
    matrix = np.column_stack([zoom, centre - zoom @ np.full(2, SHAPE / 2)])
    covered, rise = (cv2.warpAffine(plane, matrix, (side, side)) for plane in layer.shape)
    # What rises lies on the ground and follows it; print and inlays are level.
    ground = surface.height + np.float32(layer.rise * px) * rise if layer.rise else 0
    surface.height += covered * (ground + raised - surface.height)
    surface.albedo += covered[..., None] * (albedo - surface.albedo)
    surface.gloss += covered * (np.float32(layer.gloss) - surface.gloss)


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
    image *= (1 + part.slope[0] * ramp[None, :] + part.slope[1] * ramp[:, None])[..., None]
    # The camera's gain is set once for a product: by its layers, not by this part.
    gain = product.exposure / max(_brightness(product), 0.02) * part.exposure
    image = cv2.GaussianBlur(
        image * np.float32(gain), (0, 0), max(product.blur * product.unit, 0.3)
    )
    rng = np.random.default_rng([part.seed, 0])
    if product.grey:
        image = np.repeat(image.mean(2, keepdims=True), 3, 2)
    channels = 1 if product.grey else 3
    noise = rng.standard_normal((side, side, channels), np.float32)
    image = image + np.float32(product.variation.noise) * noise
    return np.clip(np.round(image * 255), 0, 255).astype(np.uint8)


def _brightness(product: Product) -> float:
    """Mean grey of the layers' colours, each counted by its area."""
    grey = float(product.layers[0].colours.mean())
    for layer in product.layers[1:]:
        share = min(0.5 * layer.size**2, 0.9)
        grey += share * (float(layer.colours.mean()) - grey)
    return grey


def _pattern(
    layer: Layer, pose: np.ndarray, offset: np.ndarray, origin: np.ndarray, side: int, px: float
) -> tuple[Field, Field]:
    """The layer's material over the frame, periodic, where the part lies."""
    # From the image's pixels to the tile's.
    matrix = layer.scale / px * (pose @ _rotation(layer.turn)).T
    warp = np.column_stack([matrix, origin - matrix @ offset])
    both = [
        cv2.warpAffine(
            plane, warp, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_WRAP,
        )
        for plane in (layer.material.height, layer.material.paint)
    ]  # fmt: skip
    return both[0], both[1]


def _rotation(angle: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])
