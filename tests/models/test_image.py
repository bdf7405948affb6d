"""Real files in, pixels or an ImageError out: never another exception, never a warning."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.errors import ImageError
from models.image import (
    InputSize,
    PixelContract,
    decode,
    encode_png,
    read_mask,
    resize,
    resize_mask,
    without_borders,
)

RGB8 = PixelContract()
GREY16 = PixelContract(colour="grey", bit_depth=16)
H, W = 24, 40

_Y, _X = np.mgrid[:H, :W]
COLOUR = np.stack([_X * 6, _Y * 10, 255 - (_X + _Y) * 4], axis=2).astype(np.uint8)
GREY = (_X * 4 + _Y * 4).astype(np.uint8)
DEEP = np.linspace(0, 65535, H * W).astype(np.uint16).reshape(H, W)
DEEP_COLOUR = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], axis=2)
HALF_ALPHA = np.full((H, W), 255, np.uint8)
HALF_ALPHA[3, 5] = 254  # one pixel, by one level


def encode(image: Image.Image | NDArray[Any], form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    source = image if isinstance(image, Image.Image) else Image.fromarray(image)
    source.save(buffer, form, **options)
    return buffer.getvalue()


def encode_cv2(values: NDArray[Any], suffix: str) -> bytes:
    return cv2.imencode(suffix, values)[1].tobytes()


def encode_tiff(samples: NDArray[Any], tags: dict[int, tuple[int, ...]]) -> bytes:
    """An uncompressed TIFF of a byte order and with tags that neither Pillow nor OpenCV writes."""
    order = ">" if samples.dtype.byteorder == ">" else "<"
    strips = 3 if tags.get(284) == (2,) else 1  # one for each colour plane
    size = samples.nbytes // strips
    tags = {
        **{256: (W,), 257: (H,), 259: (1,), 277: (len(tags[258]),), 278: (H,)},
        **{273: tuple(8 + i * size for i in range(strips)), 279: (size,) * strips},
        **tags,
    }
    body, fields = samples.tobytes(), b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            body, packed = body + packed, struct.pack(f"{order}I", 8 + len(body))
        fields += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    magic = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(tags)) + fields + bytes(4)
    return magic + struct.pack(f"{order}I", 8 + len(body)) + body + directory


def encode_bmp565(values: NDArray[np.uint16]) -> bytes:
    data = values[::-1].astype("<u2").tobytes()
    header = struct.pack("<IiiHHIIiiII3I", 40, W, H, 1, 16, 3, len(data), *[0] * 4, 63488, 2016, 31)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(data), 0, 0, 66) + header + data


def with_alpha(mode: str, alpha: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(np.dstack([COLOUR, alpha]))
    if mode != "PA":
        return image.convert(mode)
    palette = image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE).convert("PA")
    palette.putalpha(Image.fromarray(alpha))
    return palette


def grey_to_rgb(values: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(values[..., None], 3, axis=2)


def close(got: NDArray[np.uint8], expected: NDArray[Any], levels: float) -> bool:
    assert got.shape == expected.shape
    assert got.dtype == np.uint8
    return bool(np.abs(got.astype(float) - expected).max() <= levels)


LOSSLESS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "bmp": ("BMP", {}),
    "webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff-deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}
ALL_FORMATS = {
    **LOSSLESS,
    "jpeg": ("JPEG", {"quality": 95}),
    "jpeg-progressive": ("JPEG", {"progressive": True}),
    "webp-lossy": ("WEBP", {}),
}
each_format = pytest.mark.parametrize("name", ALL_FORMATS)


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_file_gives_its_very_pixels(name: str) -> None:
    form, options = LOSSLESS[name]
    assert close(decode(encode(COLOUR, form, **options), RGB8), COLOUR, 0)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".jpg"])
def test_a_file_of_another_library_gives_what_that_library_reads(suffix: str) -> None:
    data = encode_cv2(COLOUR[..., ::-1], suffix)
    assert close(decode(data, RGB8), cv2.imdecode(np.frombuffer(data, np.uint8), 1)[..., ::-1], 1)


@pytest.mark.parametrize("name", ["jpeg", "webp-lossy"])
@pytest.mark.parametrize("pixels", [COLOUR, grey_to_rgb(GREY)], ids=["colour", "grey"])
def test_a_lossy_file_stays_near_its_pixels(name: str, pixels: NDArray[np.uint8]) -> None:
    form, options = ALL_FORMATS[name]
    assert np.abs(decode(encode(pixels, form, **options), RGB8).astype(int) - pixels).mean() < 3


PALETTE = Image.fromarray(COLOUR).quantize(16)
PALETTE_RGB = np.array(PALETTE.getpalette(), np.uint8).reshape(-1, 3)[np.array(PALETTE)]
BITS = GREY > 100
CMYK = np.dstack([COLOUR, GREY // 2])
CMYK_RGB = (255.0 - CMYK[..., :3]) * (255.0 - CMYK[..., 3:]) / 255
FLAT_CMYK = np.full((H, W, 4), (200, 30, 90, 40), np.uint8)
FIVE_SIX_FIVE = np.stack([COLOUR[..., 0] >> 3, COLOUR[..., 1] >> 2, COLOUR[..., 2] >> 3], axis=2)
PACKED = (FIVE_SIX_FIVE.astype(np.uint16) << np.array([11, 5, 0], np.uint16)).sum(2, np.uint16)

MAPPINGS: dict[str, tuple[bytes, NDArray[Any], float]] = {
    "1 png": (encode(BITS, "PNG"), grey_to_rgb(BITS * 255), 0),
    "1 tiff": (encode(BITS, "TIFF", compression="group4"), grey_to_rgb(BITS * 255), 0),
    "L png": (encode(GREY, "PNG"), grey_to_rgb(GREY), 0),
    "L tiff, 0 is white": (
        encode_tiff(255 - GREY, {258: (8,), 262: (0,)}),
        grey_to_rgb(GREY),
        0,
    ),
    "LA png": (
        encode(np.dstack([GREY, np.full_like(GREY, 255)]), "PNG"),
        grey_to_rgb(GREY),
        0,
    ),
    "P png": (encode(PALETTE, "PNG"), PALETTE_RGB, 0),
    "P bmp": (encode(PALETTE, "BMP"), PALETTE_RGB, 0),
    "P png, opaque": (encode(PALETTE, "PNG", transparency=bytes([255] * 16)), PALETTE_RGB, 0),
    "PA tiff": (encode(PALETTE.convert("PA"), "TIFF"), PALETTE_RGB, 0),
    "RGB png, unused transparent colour": (
        encode(COLOUR, "PNG", transparency=(1, 2, 3)),
        COLOUR,
        0,
    ),
    "RGBA png": (encode(with_alpha("RGBA", HALF_ALPHA | 1), "PNG"), COLOUR, 0),
    "RGBA bmp": (
        encode_cv2(np.dstack([COLOUR[..., ::-1], HALF_ALPHA | 1]), ".bmp"),
        COLOUR,
        0,
    ),
    "RGBX bmp": (encode(with_alpha("RGBA", HALF_ALPHA), "BMP"), COLOUR, 0),
    "RGBA webp": (encode(with_alpha("RGBA", HALF_ALPHA | 1), "WEBP", lossless=True), COLOUR, 0),
    "RGBX tiff": (
        encode_tiff(np.dstack([COLOUR, GREY]), {258: (8,) * 4, 262: (2,), 338: (0,)}),
        COLOUR,
        0,
    ),
    "CMYK tiff": (encode(Image.fromarray(CMYK, "CMYK"), "TIFF"), CMYK_RGB, 1),
    "CMYK jpeg": (
        encode(Image.fromarray(FLAT_CMYK, "CMYK"), "JPEG", quality=100),
        np.tile([46.4, 189.7, 139.1], (H, W, 1)),
        2,
    ),
    "565 bmp": (encode_bmp565(PACKED), FIVE_SIX_FIVE * (255 / np.array([31, 63, 31])), 1),
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_every_kind_of_8_bit_file_maps_to_rgb(name: str) -> None:
    data, expected, levels = MAPPINGS[name]
    assert close(decode(data, RGB8), expected, levels)


TRANSLUCENT = {
    **{f"{mode} tiff": encode(with_alpha(mode, HALF_ALPHA), "TIFF") for mode in ("LA", "PA")},
    "LA png": encode(with_alpha("LA", HALF_ALPHA), "PNG"),
    "RGBA png": encode(with_alpha("RGBA", HALF_ALPHA), "PNG"),
    "RGBA bmp": encode_cv2(np.dstack([COLOUR, HALF_ALPHA]), ".bmp"),
    "RGBA tiff": encode(with_alpha("RGBA", HALF_ALPHA), "TIFF"),
    "RGBA webp": encode(with_alpha("RGBA", HALF_ALPHA), "WEBP", lossless=True),
    "RGBA tiff, premultiplied": encode_tiff(
        np.dstack([COLOUR // 2, np.full_like(GREY, 128)]), {258: (8,) * 4, 262: (2,), 338: (1,)}
    ),
    "P png, alphas": encode(PALETTE, "PNG", transparency=bytes([255] * 15 + [254])),
    "P png, index": encode(PALETTE, "PNG", transparency=int(np.array(PALETTE)[0, 0])),
    "1 png": encode(BITS, "PNG", transparency=255),
    "L png": encode(GREY, "PNG", transparency=int(GREY[5, 5])),
    "RGB png": encode(COLOUR, "PNG", transparency=tuple(COLOUR[5, 5].tolist())),
}


@pytest.mark.parametrize("name", TRANSLUCENT)
def test_a_translucent_pixel_is_refused(name: str) -> None:
    with pytest.raises(ImageError, match="transparent"):
        decode(TRANSLUCENT[name], RGB8)


def test_a_transparent_grey_of_16_bits_is_refused_where_it_occurs() -> None:
    with pytest.raises(ImageError, match="transparent"):
        decode(encode(DEEP, "PNG", transparency=int(DEEP[5, 5])), GREY16)
    unused = encode(DEEP, "PNG", transparency=int(DEEP[5, 5]) + 1)
    assert np.array_equal(decode(unused, GREY16), decode(encode(DEEP, "PNG"), GREY16))


DEEP_FILES: dict[str, Callable[[NDArray[np.uint16]], bytes]] = {
    "png": lambda values: encode(values, "PNG"),
    "png, OpenCV": lambda values: encode_cv2(values, ".png"),
    "tiff": lambda values: encode(values, "TIFF"),
    "tiff-lzw, OpenCV": lambda values: encode_cv2(values, ".tiff"),
    "tiff, little-endian": lambda values: encode_tiff(values, {258: (16,), 262: (1,)}),
    "tiff, big-endian": lambda values: encode_tiff(values.astype(">u2"), {258: (16,), 262: (1,)}),
}


@pytest.mark.parametrize("name", DEEP_FILES)
@pytest.mark.parametrize("depth", [10, 12, 14, 16])
def test_deep_grey_maps_linearly_from_the_declared_depth(name: str, depth: int) -> None:
    contract = PixelContract(colour="grey", bit_depth=depth)
    values = DEEP >> (16 - depth)
    got = decode(DEEP_FILES[name](values), contract)
    assert close(got, grey_to_rgb(values * (255 / (2**depth - 1))), 0.5)
    if depth < 16:
        values[-1, -1] = 2**depth
        with pytest.raises(ImageError, match=f"ends at {2**depth - 1}"):
            decode(DEEP_FILES[name](values), contract)


def test_grey_of_12_bits_is_for_recipes_of_that_depth() -> None:
    values = DEEP >> 4
    bits = (values[..., None] >> np.arange(11, -1, -1) & 1).reshape(H, -1).astype(np.uint8)
    data = encode_tiff(np.packbits(bits, axis=1), {258: (12,), 262: (1,)})
    twelve = PixelContract(colour="grey", bit_depth=12)
    assert close(decode(data, twelve), grey_to_rgb(values * (255 / 4095)), 0.5)
    for depth in (8, 10, 14, 16):  # as one of 16 it would be all but black
        with pytest.raises(ImageError, match="12-bit samples"):
            decode(data, PixelContract(colour="grey", bit_depth=depth))


@pytest.mark.parametrize("name", DEEP_FILES)
def test_a_16_bit_file_is_refused_by_a_recipe_of_8_bits(name: str) -> None:
    with pytest.raises(ImageError, match="16-bit samples; the recipe declares a bit depth of 8"):
        decode(DEEP_FILES[name](DEEP), RGB8)


@each_format
def test_an_8_bit_file_is_refused_by_a_recipe_of_more(name: str) -> None:
    form, options = ALL_FORMATS[name]
    with pytest.raises(ImageError, match="8-bit samples; the recipe declares a bit depth of 12"):
        decode(encode(COLOUR, form, **options), PixelContract(bit_depth=12))


DEEP_COLOURS = {
    "png": encode_cv2(DEEP_COLOUR, ".png"),
    "png, alpha": encode_cv2(np.dstack([DEEP_COLOUR, DEEP]), ".png"),
    "tiff-lzw": encode_cv2(DEEP_COLOUR, ".tiff"),
    "tiff": encode_tiff(DEEP_COLOUR, {258: (16,) * 3, 262: (2,)}),
    "tiff, planes": encode_tiff(
        np.ascontiguousarray(DEEP_COLOUR.transpose(2, 0, 1)),
        {258: (16,) * 3, 262: (2,), 284: (2,)},
    ),
    "tiff, CMYK": encode_tiff(np.dstack([DEEP_COLOUR, DEEP]), {258: (16,) * 4, 262: (5,)}),
}


@pytest.mark.parametrize("name", DEEP_COLOURS)
@pytest.mark.parametrize("depth", [8, 16])
def test_deep_colour_is_refused(name: str, depth: int) -> None:
    with pytest.raises(ImageError, match="16-bit"):
        decode(DEEP_COLOURS[name], PixelContract(bit_depth=depth))


UNMAPPED = {
    "I tiff": encode_tiff(DEEP.astype(np.uint32), {258: (32,), 262: (1,)}),
    "F tiff": encode(DEEP.astype(np.float32), "TIFF"),
    "signed 8-bit tiff": encode_tiff(GREY, {258: (8,), 262: (1,), 339: (2,)}),
    "signed 16-bit tiff": encode_tiff(DEEP, {258: (16,), 262: (1,), 339: (2,)}),
    "signed 32-bit tiff": encode(DEEP.astype(np.int32), "TIFF"),
    "16-bit tiff, 0 is white": encode_tiff(DEEP, {258: (16,), 262: (0,)}),
    "La tiff": encode_tiff(np.dstack([GREY, GREY]), {258: (8, 8), 262: (1,), 338: (1,)}),
    "Lab tiff": encode_tiff(COLOUR, {258: (8,) * 3, 262: (8,)}),
}


@pytest.mark.parametrize("name", UNMAPPED)
@pytest.mark.parametrize("depth", [8, 16])
def test_samples_without_a_declared_mapping_are_refused(name: str, depth: int) -> None:
    with pytest.raises(ImageError, match=r"mode|signed|0 is white"):
        decode(UNMAPPED[name], PixelContract(bit_depth=depth))


@pytest.mark.parametrize("name", ["png", "bmp", "tiff-lzw"])
def test_a_grey_recipe_takes_the_luma(name: str) -> None:
    form, options = LOSSLESS[name]
    contract = PixelContract(colour="grey")
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert close(decode(encode(COLOUR, form, **options), contract), grey_to_rgb(luma), 1)
    assert close(decode(encode(GREY, form, **options), contract), grey_to_rgb(GREY), 0)


UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", sorted(set(ALL_FORMATS) - {"bmp"}))
def test_the_exif_orientation_is_applied(name: str, orientation: int) -> None:
    form, options = ALL_FORMATS[name]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = decode(encode(COLOUR, form, **options), RGB8)
    turned = decode(encode(COLOUR, form, exif=exif, **options), RGB8)
    assert np.array_equal(turned, UPRIGHT[orientation](stored))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_the_orientation_of_deep_grey_is_applied(dtype: str, orientation: int) -> None:
    data = encode_tiff(DEEP.astype(dtype), {258: (16,), 262: (1,), 274: (orientation,)})
    assert close(decode(data, GREY16), grey_to_rgb(UPRIGHT[orientation](DEEP / 257)), 0.5)


def outcomes(files: Iterator[bytes]) -> list[NDArray[np.uint8] | None]:
    """The pixels of each file, or None where it is refused; any other exception fails the test."""
    results: list[NDArray[np.uint8] | None] = []
    for data in files:
        try:
            results.append(decode(data, RGB8, max_pixels=1_000_000))
        except ImageError as error:
            assert error.remedy
            results.append(None)
    return results


@each_format
def test_a_truncated_file_is_refused_unless_no_pixel_is_lost(name: str) -> None:
    form, options = ALL_FORMATS[name]
    noise = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    data = encode(noise, form, **options)
    whole = decode(data, RGB8)
    lengths = sorted({*range(0, len(data), 13), *range(max(0, len(data) - 40), len(data))})
    results = outcomes(data[:length] for length in lengths)
    assert all(pixels is None or np.array_equal(pixels, whole) for pixels in results)
    assert all(
        pixels is None
        for pixels, length in zip(results, lengths, strict=True)
        if length < len(data) - 40
    )


@each_format
def test_flipped_bits_are_refused_or_still_give_an_image(name: str) -> None:
    form, options = ALL_FORMATS[name]
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a maker", 6
    data = encode(COLOUR, form, **options, **({} if form == "BMP" else {"exif": exif}))
    rng = np.random.default_rng(0)

    def flipped() -> Iterator[bytes]:
        for trial in range(500):
            damaged = bytearray(data)
            reach = len(data) if trial % 2 else min(200, len(data))  # the header, then anywhere
            for place in rng.integers(0, reach, 1 + trial % 3):
                damaged[place] ^= 1 << int(rng.integers(8))
            yield bytes(damaged)

    results = outcomes(flipped())
    assert any(pixels is None for pixels in results)
    assert all(
        pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        for pixels in results
        if pixels is not None
    )


def test_odd_metadata_of_whole_pixels_is_no_matter() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a maker of some length"
    data = encode(COLOUR, "JPEG", exif=exif)
    odd = data.replace(struct.pack(">HHI", 0x010F, 2, 23), struct.pack(">HHI", 0x010F, 2, 9999))
    with pytest.warns(UserWarning, match="Tag data larger than file"):
        Image.open(io.BytesIO(odd)).getexif().get(0x010F)
    assert np.array_equal(decode(odd, RGB8), decode(data, RGB8))


@pytest.mark.parametrize("form", ["WEBP", "TIFF", "PNG", "MPO"])
def test_a_file_of_several_frames_is_refused(form: str) -> None:
    frames = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1].copy())]
    with pytest.raises(ImageError, match="2 frames"):
        decode(encode(frames[0], form, save_all=True, append_images=frames[1:]), RGB8)


@pytest.mark.parametrize("side", [8001, 12_000, 60_000])
def test_a_header_that_claims_too_many_pixels_is_refused(side: int) -> None:
    png = bytearray(encode(GREY, "PNG"))
    png[16:24] = struct.pack(">II", side, side)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    bmp = bytearray(encode(GREY, "BMP"))
    bmp[18:26] = struct.pack("<II", side, side)
    tiff = encode_tiff(GREY, {256: (side,), 257: (side,), 258: (8,), 262: (1,)})
    for data in (bytes(png), bytes(bmp), tiff):
        with pytest.raises(ImageError, match="the limit of 64,000,000"):
            decode(data, RGB8)


def test_the_limit_of_pixels_is_inclusive() -> None:
    data = encode(COLOUR, "PNG")
    assert decode(data, RGB8, max_pixels=H * W).shape == (H, W, 3)
    with pytest.raises(ImageError, match=f"{W}×{H} pixels, more than the limit of {H * W - 1}"):
        decode(data, RGB8, max_pixels=H * W - 1)


NOT_IMAGES = {
    "nothing": b"",
    "text": b"a photo of a cap",
    "zeros": bytes(1000),
    **{form: encode(COLOUR, form) for form in ("GIF", "ICO", "PPM", "TGA")},
}


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_other_data_is_refused(name: str) -> None:
    with pytest.raises(ImageError, match=r"empty|not a readable"):
        decode(NOT_IMAGES[name], RGB8)


def test_resize_keeps_an_image_of_the_right_size() -> None:
    assert np.array_equal(resize(COLOUR, InputSize(height=H, width=W)), COLOUR)


def test_resize_averages_where_it_shrinks() -> None:
    checks = grey_to_rgb(((np.indices((64, 96)).sum(0) % 2) * 255).astype(np.uint8))
    assert close(resize(checks, InputSize(height=16, width=12)), np.full((16, 12, 3), 127.5), 2)


def test_resize_interpolates_where_it_grows() -> None:
    ramp = grey_to_rgb(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (4, 1)))
    centres = (np.arange(320) + 0.5) / 10 - 0.5
    expected = np.tile(np.clip(centres, 0, 31) * 8, (8, 1))
    assert close(resize(ramp, InputSize(height=8, width=320)), grey_to_rgb(expected), 1)


def test_a_letterbox_keeps_proportions_and_its_borders_are_taken_off_again() -> None:
    size = InputSize(height=64, width=64, resize="letterbox")
    wide = np.full((20, 40, 3), 200, np.uint8)
    seen = resize(wide, size)
    assert (seen[16:48] == 200).all()
    assert not seen[:16].any() and not seen[48:].any()
    assert resize_mask(np.ones((20, 40), np.bool_), size).sum() == 32 * 64
    heatmap = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    assert np.array_equal(without_borders(heatmap, size, width=40, height=20), heatmap[16:48])
    assert without_borders(heatmap, size, width=8, height=1_000_000).shape == (64, 1)
    stretched = InputSize(height=64, width=64)
    assert without_borders(heatmap, stretched, width=40, height=20).shape == (64, 64)


def test_resize_mask_marks_what_is_at_least_half_marked() -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[0:2, 0:1] = True  # half of the first 2×2 cell
    mask[2, 2] = True  # a quarter of another
    small = resize_mask(mask, InputSize(height=4, width=4))
    assert small.dtype == np.bool_
    assert np.argwhere(small).tolist() == [[0, 0]]


@pytest.mark.parametrize("values", [GREY, COLOUR], ids=["grey", "colour"])
def test_encode_png_is_read_back_exactly(values: NDArray[np.uint8]) -> None:
    expected = values if values.ndim == 3 else grey_to_rgb(values)
    assert np.array_equal(decode(encode_png(values), RGB8), expected)
    assert len(encode_png(values, level=9)) <= len(encode_png(values, level=0))


def test_encode_png_keeps_16_bits() -> None:
    data = np.frombuffer(encode_png(DEEP), np.uint8)
    assert np.array_equal(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), DEEP)


MASK = GREY > 127


@pytest.mark.parametrize(
    "data",
    [
        encode(MASK, "PNG"),
        encode(GREY, "PNG"),
        encode(grey_to_rgb(GREY), "BMP"),
        encode((MASK * 255).astype(np.uint8), "TIFF"),
        encode(Image.fromarray(GREY).convert("P"), "PNG"),
    ],
    ids=["bits", "grey", "colour", "tiff", "palette"],
)
def test_a_mask_is_true_above_half(data: bytes) -> None:
    mask = read_mask(data)
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, MASK)


def test_an_empty_mask_marks_nothing() -> None:
    assert not read_mask(encode(np.zeros((H, W), np.uint8), "PNG")).any()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (encode(MASK.astype(np.uint8), "PNG"), "largest value is 1"),
        (encode(DEEP, "PNG"), "16-bit"),
        (encode(DEEP.astype(np.float32), "TIFF"), "mode F"),
        (encode(with_alpha("RGBA", GREY), "PNG"), "transparent"),
        (encode(GREY, "PNG")[:-30], "damaged"),
        (b"", "empty"),
    ],
    ids=["0 and 1", "16-bit", "float", "alpha", "truncated", "nothing"],
)
def test_a_mask_that_could_be_misread_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        read_mask(data)
