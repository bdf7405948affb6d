"""Raw camera buffers, in GenICam's pixel formats, as image files that say what they hold.

Uncompressed: that costs next to nothing, and from here on a buffer is an image as any other.
"""

import io
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import ImageError
from models.image import MAX_PIXELS, MIN_SIDE

# As the Pixel Format Naming Convention of EMVA has them; Mono16 is little-endian.
PixelFormat = Literal["Mono8", "Mono16", "BGR8", "BayerRG8"]
PIXEL_FORMATS: tuple[PixelFormat, ...] = get_args(PixelFormat)
_BYTES: dict[PixelFormat, int] = {"Mono8": 1, "Mono16": 2, "BGR8": 3, "BayerRG8": 1}
_BAND = 64  # rows at a time, an even number: what lies between then stays in a cache


def image_file(
    data: bytes,
    pixel_format: PixelFormat,
    *,
    width: int,
    height: int,
    max_pixels: int = MAX_PIXELS,
) -> tuple[bytes, str]:
    """A buffer of `height` rows without padding as a file, BMP or TIFF, and its content type.

    `BayerRG8` is interpolated linearly to colours, the outermost pixels being as those beside them.
    Raises ImageError for another length than the format
    and the sides make, or more than `max_pixels`.
    """
    if width * height > max_pixels:
        raise ImageError(
            f"The image has {width}×{height} pixels, more than the limit of {max_pixels:,}.",
            remedy="Send a smaller image, or raise the limit.",
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"The image has {width}×{height} pixels, too few to show a part.",
            remedy=f"Send at least {MIN_SIDE} pixels a side.",
        )
    expected = width * height * _BYTES[pixel_format]
    if len(data) != expected:
        raise ImageError(
            f"The buffer has {len(data):,} bytes; {width}×{height} pixels of {pixel_format} have "
            f"{expected:,}.",
            remedy="Send the rows without padding, and the sides and pixel format that the camera "
            "is set to.",
        )
    if pixel_format == "Mono16":
        samples = np.frombuffer(data, "<u2").reshape(height, width)
        return _encode(samples, "TIFF"), "image/tiff"
    values = np.frombuffer(data, np.uint8)
    match pixel_format:
        case "Mono8":
            pixels = values.reshape(height, width)
        case "BGR8":
            pixels = np.ascontiguousarray(values.reshape(height, width, 3)[..., ::-1])
        case "BayerRG8":
            pixels = _interpolated(values.reshape(height, width))
    return _encode(pixels, "BMP"), "image/bmp"


def _interpolated(mosaic: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of a mosaic with red at (0, 0) and blue at (1, 1)."""
    height, width = mosaic.shape
    rgb = np.empty((height, width, 3), np.uint8)
    for top in range(1, height - 1, _BAND):
        bottom = min(top + _BAND, height - 1)
        _interpolate(mosaic[top - 1 : bottom + 1], rgb[top:bottom, 1:-1])
    rgb[0], rgb[-1] = rgb[1], rgb[-2]
    rgb[:, 0], rgb[:, -1] = rgb[:, 1], rgb[:, -2]
    return rgb


def _interpolate(mosaic: NDArray[np.uint8], rgb: NDArray[np.uint8]) -> None:
    """Fill `rgb`, which is of all pixels but the outermost: what a filter held back is the mean of
    its two or four nearest neighbours, rounded half up."""
    values = mosaic.astype(np.uint16)
    beside = values[1:-1, :-2] + values[1:-1, 2:]
    above = values[:-2, 1:-1] + values[2:, 1:-1]
    rows = values[:-2] + values[2:]
    around = (beside + above + 2) >> 2
    corners = (rows[:, :-2] + rows[:, 2:] + 2) >> 2
    row, column = (beside + 1) >> 1, (above + 1) >> 1
    own = mosaic[1:-1, 1:-1]  # which begins with blue
    for channel, (red, green_by_red, green_by_blue, blue) in enumerate(
        ((own, row, column, corners), (around, own, own, around), (corners, column, row, own))
    ):
        plane = rgb[..., channel]
        plane[1::2, 1::2] = red[1::2, 1::2]
        plane[1::2, ::2] = green_by_red[1::2, ::2]
        plane[::2, 1::2] = green_by_blue[::2, 1::2]
        plane[::2, ::2] = blue[::2, ::2]


def _encode(values: np.ndarray, format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, format)
    return file.getvalue()
