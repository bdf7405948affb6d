"""What light and lens make of an image, whatever part it shows: where drift shows first."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from models.contract import Contract
from models.image import Pixels

LIMIT = 254  # a sensor's last levels, where differences are lost

QUANTILES = 101


class Appearance(Contract):
    """Of one image: mean `brightness` 0..255, `focus` (mean square of the Laplacian of its grey
    values; larger is sharper), and the share of pixels that are `saturated`, 0..1."""

    brightness: float
    focus: float
    saturated: float


class Appearances(Contract):
    """Of a set of images: the quantiles 0 %, 1 %, … 100 % of each."""

    count: int
    brightness: tuple[float, ...]
    focus: tuple[float, ...]
    saturated: tuple[float, ...]


def appearance(image: Pixels) -> Appearance:
    """Of an image (H, W, 3) at the network's size; images of another size do not compare."""
    grey = np.asarray(Image.fromarray(image).convert("L"), np.int16)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    laplacian = (around - 4 * grey[1:-1, 1:-1]).astype(np.float32).ravel()
    # Plane by plane: a maximum along the last axis takes thirty times longer.
    brightest = np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])
    return Appearance(
        brightness=float(grey.mean()),
        focus=float(laplacian @ laplacian) / laplacian.size,
        saturated=float((brightest >= LIMIT).mean()),
    )


def appearances(images: Iterable[Pixels]) -> Appearances:
    """Of at least one image."""
    found = [appearance(image) for image in images]
    steps = np.linspace(0, 1, QUANTILES)

    def quantiles(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(float(value) for value in np.quantile(values, steps))

    return Appearances(
        count=len(found),
        brightness=quantiles([one.brightness for one in found]),
        focus=quantiles([one.focus for one in found]),
        saturated=quantiles([one.saturated for one in found]),
    )
