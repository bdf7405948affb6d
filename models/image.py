"""Bytes to pixels: the only decoding and the only resizing in Kizu.

Training and serving both come through here, so that a part is seen the same way by both. What
a file may contain, and how it is mapped to 8-bit RGB, is declared by a PixelContract; whatever
the contract does not cover is refused, because a silent conversion (16 bits clipped at 255, an
alpha channel composed on black) would change the verdict.
"""

import io
import struct
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    FILLORDER,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    TiffImageFile,
)
from pydantic import model_validator

from models.contract import Contract
from models.errors import ImageError

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000
MIN_SIDE = 8

# What Pillow's readers raise on broken files, found by feeding them such files.
_BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, IndexError, KeyError, TypeError,
    OverflowError, ZeroDivisionError, RuntimeError, NotImplementedError, AttributeError,
    Image.DecompressionBombError,
)  # fmt: skip

# Pillow opens more (signed, 32-bit, float, premultiplied, Lab): none has one right 8-bit RGB.
_GREY16 = ("I;16", "I;16B")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", *_GREY16)


class PixelContract(Contract):
    """What the camera of a recipe delivers.

    `bit_depth` is the number of significant bits of a sample. Above 8, the file holds 16-bit
    samples in 0 .. 2**bit_depth - 1; one of 12-bit samples is for a depth of 12 alone. The
    `window`, a black and a white level, is mapped linearly to 0 .. 255; below it all is black,
    above it all is white. Without one the whole range is mapped. `colour="grey"` takes the luma
    (ITU-R 601) of a colour image.
    """

    colour: Literal["rgb", "grey"] = "rgb"
    bit_depth: Literal[8, 10, 12, 14, 16] = 8
    window: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _window_fits(self) -> "PixelContract":
        if self.window is None:
            return self
        black, white = self.window
        if self.bit_depth == 8:
            raise ValueError("a window is for samples of more than 8 bits")
        if not 0 <= black < white < 1 << self.bit_depth:
            raise ValueError(
                f"a window has a black level below its white level, both within 0 and "
                f"{(1 << self.bit_depth) - 1}"
            )
        return self


Resize = Literal["stretch", "letterbox"]


class InputSize(Contract):
    """The size a network sees, in pixels, and how an image gets there: stretched, or with black
    borders that give it the same proportions first.

    Where a `tile` is named, the backbone sees squares of that side one after the other. They are
    cut inside the graph: outside of it an image is resized, whether tiled or not.
    """

    height: int
    width: int
    resize: Resize = "stretch"
    tile: int | None = None


def decode(data: bytes, contract: PixelContract, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image file to uint8 (H, W, 3) RGB, with its orientation (EXIF, else XMP) applied.

    Samples of fewer than 8 bits are spread over 0 .. 255 and rounded down, palettes looked up,
    grey is repeated thrice, each of CMYK's first three becomes (255 - C)(255 - K) / 255, an alpha
    channel is dropped where it is opaque everywhere; profiles and gamma are ignored. Raises
    ImageError for anything unreadable, larger than `max_pixels` or smaller than `MIN_SIDE`, of
    several frames, translucent, or of another depth than declared.
    """
    with warnings.catch_warnings():
        # Pillow warns of odd metadata; here a file is read or refused. Only Pillow's warnings,
        # since other threads may see this filter.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        image = _open(data, max_pixels)
        _refuse_misread(data, image)
        bits = _sample_bits(image)
        _check_depth(image, bits, contract)
        try:
            if _is_plain_jpeg(image):
                return _read_jpeg(data, image, contract)
            image.load()
            upright = ImageOps.exif_transpose(image)
        except _BROKEN as error:
            raise ImageError(
                f"The image is damaged: {_reason(error)}.", remedy="Send the whole file, unchanged."
            ) from error
    return _map(upright, bits, contract)


def read_mask(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Mask:
    """Decode an 8-bit mask file to bool (H, W): True where its value is above half (> 127).

    Raises ImageError as `decode` does, and where something is drawn but nothing marked.
    """
    try:
        values = decode(data, PixelContract(colour="grey"), max_pixels=max_pixels)[..., 0]
    except ImageError as error:
        raise ImageError(
            f"The mask cannot be used. {error.message}", remedy="Export it again as an 8-bit PNG."
        ) from error
    if 0 < int(values.max(initial=0)) <= 127:
        raise ImageError(
            f"The mask's largest value is {int(values.max())}, so nothing in it counts as marked.",
            remedy="Store masks as 8-bit PNG with 0 for good and 255 for defective.",
        )
    marked: Mask = values > 127
    return marked


def resize(image: Pixels, size: InputSize) -> Pixels:
    """Resize uint8 (H, W, 3) to the network's size; bilinear, antialiased when it shrinks."""
    if image.shape[:2] == (size.height, size.width):
        return image
    box = content_box(size, width=image.shape[1], height=image.shape[0])
    resized = Image.fromarray(image).resize((box.width, box.height), Image.Resampling.BILINEAR)
    return _bordered(np.asarray(resized), box, size)


def resize_mask(mask: Mask, size: InputSize) -> Mask:
    """Resize bool (H, W) to the network's size: True where at least half of a pixel is marked."""
    box = content_box(size, width=mask.shape[1], height=mask.shape[0])
    share = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        (box.width, box.height), Image.Resampling.BOX
    )
    resized: Mask = _bordered(np.asarray(share), box, size) > 127
    return resized


class Box(NamedTuple):
    """A part of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


def content_box(size: InputSize, *, width: int, height: int) -> Box:
    """Where the network's input shows an image of `width` × `height`; all but its borders."""
    if size.resize == "stretch":
        return Box(0, 0, size.height, size.width)
    scale = min(size.height / height, size.width / width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    return Box((size.height - rows) // 2, (size.width - columns) // 2, rows, columns)


def without_borders(
    heatmap: NDArray[np.float32], size: InputSize, *, width: int, height: int
) -> NDArray[np.float32]:
    """What of a heatmap (H, W) of the network's input lies on an image of `width` × `height`."""
    return heatmap[content_box(size, width=width, height=height).slices]


def _bordered(content: NDArray[np.uint8], box: Box, size: InputSize) -> NDArray[np.uint8]:
    if content.shape[:2] == (size.height, size.width):
        return content
    bordered = np.zeros((size.height, size.width, *content.shape[2:]), np.uint8)
    bordered[box.slices] = content
    return bordered


def encode_png(values: NDArray[Any], *, level: int = 1) -> bytes:
    """Encode uint8 (H, W[, 3]) or uint16 (H, W) as PNG; level 1, since 6 costs five times more."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def _open(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    if not data:
        raise ImageError("The image is empty (0 bytes).", remedy="Send the image file as the body.")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        frames = getattr(image, "n_frames", 1)
    except Image.DecompressionBombError as error:  # raised within open() above 179 million pixels
        raise ImageError(
            f"The image has more pixels than the limit of {max_pixels:,}.",
            remedy="Send a smaller image.",
        ) from error
    except _BROKEN as error:
        raise ImageError(
            "The data is not a readable JPEG, PNG, BMP, TIFF or WebP image.",
            remedy="Send one of these formats, whole and unchanged.",
        ) from error
    # From the header, before any pixel is decoded: a few bytes may claim gigabytes.
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"The image has {image.width}×{image.height} pixels, more than the limit of "
            f"{max_pixels:,}.",
            remedy="Send a smaller image, or raise the limit.",
        )
    if min(image.width, image.height) < MIN_SIDE:
        raise ImageError(
            f"The image has {image.width}×{image.height} pixels, too few to show a part.",
            remedy=f"Send at least {MIN_SIDE} pixels a side.",
        )
    if frames != 1:
        raise ImageError(
            f"The file holds {frames} frames.", remedy="Send one image per file, one frame each."
        )
    return image


def _is_plain_jpeg(image: ImageFile.ImageFile) -> bool:
    """Grey or of three channels, and upright."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return image.format == "JPEG" and image.mode in ("L", "RGB") and orientation == 1


def _sample_bits(image: ImageFile.ImageFile) -> int:
    """8, 12 or 16, as stored in the file; asked before load(), which forgets the raw mode.

    The mode alone would not do: Pillow reads 48-bit RGB as 24-bit without a word.
    """
    if isinstance(image, TiffImageFile):
        stored = int(max(image.tag_v2.get(BITSPERSAMPLE, (1,))))
        return stored if stored == 12 else 16 if stored > 8 else 8
    raw_modes = _raw_modes(image)  # BMP's BGR;16 is 5, 6 and 5 bits
    return 16 if any(";16" in mode and "BGR;16" not in mode for mode in raw_modes) else 8


def _raw_modes(image: ImageFile.ImageFile) -> list[str]:
    return [str(tile.args) for tile in image.tile]


def _refuse_misread(data: bytes, image: ImageFile.ImageFile) -> None:
    """Refuse what Pillow takes for something else without a word, or set that right."""
    if isinstance(image, TiffImageFile):
        _refuse_misread_tiff(image)
    if isinstance(image, BmpImageFile):
        _refuse_misread_bmp(data, image)
    if isinstance(image, PngImageFile) and isinstance(image.info.get("transparency"), int):
        # Left as in the file, of 2 or 4 bits, while the samples are spread over 8.
        spread = {"L;2": 85, "L;4": 17}
        for mode in _raw_modes(image):
            image.info["transparency"] *= spread.get(mode, 1)


def _refuse_misread_tiff(image: TiffImageFile) -> None:
    """Signed samples, ones where 0 is white, and a single plane of several, whose photometric
    interpretation and order of bits are forgotten."""
    tags = image.tag_v2
    signed = 2 in tags.get(SAMPLEFORMAT, ())
    white, mirrored = tags.get(PHOTOMETRIC_INTERPRETATION, 0) == 0, tags.get(FILLORDER, 1) != 1
    if signed or (white and image.mode in _GREY16):
        raise ImageError(
            f"The TIFF has {'signed samples' if signed else '16-bit samples where 0 is white'}.",
            remedy="Save it with unsigned samples where 0 is black.",
        )
    planes = tags.get(PLANAR_CONFIGURATION, 1) == 2 and tags.get(SAMPLESPERPIXEL, 1) == 1
    if planes and tags.get(COMPRESSION, 1) == 1 and (white or mirrored):
        raise ImageError(
            "The TIFF keeps its one channel as a plane of several.",
            remedy="Save it with the planar configuration 1.",
        )


def _refuse_misread_bmp(data: bytes, image: BmpImageFile) -> None:
    """A palette of greys that are their own numbers: read as if each pixel took as many bits as
    the greys need."""
    (header,) = struct.unpack_from("<I", data, 14)
    (bits,) = struct.unpack_from("<H", data, 24 if header == 12 else 28)
    if bits != {"1": 1, "L": 8}.get(image.mode, bits):
        raise ImageError(
            f"The BMP has pixels of {bits} bits and a palette of fewer greys.",
            remedy="Save it with 24 bits a pixel, or as a PNG.",
        )


def _read_jpeg(data: bytes, image: ImageFile.ImageFile, contract: PixelContract) -> Pixels:
    """By the same library as Pillow's, in half of its time. Raises ValueError if it is damaged."""
    pixels: Pixels = simplejpeg.decode_jpeg(data, strict=True)  # grey as three equal channels
    if contract.colour == "grey" and image.mode != "L":
        return np.array(Image.fromarray(pixels).convert("L").convert("RGB"))
    return pixels


def _check_depth(image: Image.Image, bits: int, contract: PixelContract) -> None:
    if image.mode not in _MODES:
        raise ImageError(
            f"The image is of mode {image.mode}, which has no mapping to 8-bit RGB.",
            remedy="Send 8-bit samples, or 16-bit grey to a recipe with a bit depth above 8.",
        )
    fits = {8: contract.bit_depth == 8, 12: contract.bit_depth == 12, 16: contract.bit_depth > 8}
    if not fits[bits]:
        raise ImageError(
            f"The image has {bits}-bit samples; the recipe declares a bit depth of "
            f"{contract.bit_depth}.",
            remedy="Set the camera to the recipe's depth, or train the recipe for this depth.",
        )


def _map(image: Image.Image, bits: int, contract: PixelContract) -> Pixels:
    image8 = _to_8_bit(image, contract) if bits > 8 else image
    if "A" in image8.getbands() or "transparency" in image8.info:
        image8 = _opaque(image8)
    if contract.colour == "grey" and image8.mode != "L":
        image8 = image8.convert("RGB").convert("L")
    if image8.mode == "L":  # Pillow's RGB takes four bytes a pixel
        return np.repeat(np.asarray(image8)[..., None], 3, axis=2)
    return np.array(image8.convert("RGB"))


def _to_8_bit(image: Image.Image, contract: PixelContract) -> Image.Image:
    samples = np.asarray(image)
    if image.mode not in _GREY16:
        raise ImageError(
            "The image holds 16-bit colour samples.",
            remedy="Send 16-bit grey, or 8-bit colour to a recipe of bit depth 8.",
        )
    top = (1 << contract.bit_depth) - 1
    if int(samples.max(initial=0)) > top:
        raise ImageError(
            f"The image has samples up to {int(samples.max())}; a bit depth of "
            f"{contract.bit_depth} ends at {top}.",
            remedy="Check whether the camera left-aligns its samples; train the recipe for 16.",
        )
    if "transparency" in image.info and (samples == image.info["transparency"]).any():
        raise _translucent()
    black, white = contract.window or (0, top)
    levels = (samples.astype(np.float64) - black) * (255.0 / (white - black))
    return Image.fromarray(np.rint(levels.clip(0, 255)).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A").getextrema()
    if alpha != (255, 255):
        raise _translucent()
    return rgba.convert("RGB")


def _translucent() -> ImageError:
    return ImageError(
        "The image is partly transparent, and there is no right colour behind it.",
        remedy="Send the image without an alpha channel.",
    )


def _reason(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__
