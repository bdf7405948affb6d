"""Raw camera buffers, in GenICam's pixel formats, as image files that say what they hold.

Uncompressed: that costs next to nothing, and from here on a buffer is an image as any other.
"""

import io
from typing import Literal, get_args

import cv2
import numpy as np
from PIL import Image

from models.errors import ImageError
from models.image import MAX_PIXELS, MIN_SIDE

# As the Pixel Format Naming Convention of EMVA has them; Mono16 is little-endian.
PixelFormat = Literal["Mono8", "Mono16", "BGR8", "BayerRG8"]
PIXEL_FORMATS: tuple[PixelFormat, ...] = get_args(PixelFormat)
_BYTES: dict[PixelFormat, int] = {"Mono8": 1, "Mono16": 2, "BGR8": 3, "BayerRG8": 1}


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
            # OpenCV names a pattern by its second row, from the second column on.
            mosaic = values.reshape(height, width)
            pixels = np.asarray(cv2.cvtColor(mosaic, cv2.COLOR_BayerBG2RGB), np.uint8)
    return _encode(pixels, "BMP"), "image/bmp"


def _encode(values: np.ndarray, format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, format)
    return file.getvalue()
