"""Pictures whose pixels are known because they were drawn, in every kind of file and buffer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import product
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tests.gates.written import Values, bmp, jpeg, mirrored, packed, png, saved, tiff

H, W = 24, 40
DEPTHS = (10, 12, 14, 16)

_Y, _X = np.mgrid[:H, :W]
# Ramps with edges, each bit alone, a chequer, and both ends: not the same from any other side.
GREY = ((_X * 13 + _Y * 3) % 256).astype(np.uint8)
GREY[2:6, 2:18] = 1 << (np.arange(16) // 2)
GREY[8:12, 2:10] = 255 * ((_X + _Y)[8:12, 2:10] % 2)
GREY[13, 2:10] = (0, 1, 2, 127, 128, 253, 254, 255)
COLOUR = np.dstack([GREY, np.roll(GREY[::-1], 3, 1), 255 - np.roll(GREY, 7, 0)])
CMYK = np.dstack([COLOUR, GREY // 2])
BITS = GREY > 100
DEEP = np.linspace(0, 65535, H * W).astype(np.uint16).reshape(H, W)
DEEP[2:6, 2:18] = 1 << np.arange(16)
DEEP[8, 2:12] = (0, 1, 2, 255, 256, 257, 0x7FFF, 0x8000, 65534, 65535)
DEEP[10:14, 2:10] = 65535 * ((_X + _Y)[10:14, 2:10] % 2)
DEEP_COLOUR = np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1]])
INTEGERS = DEEP.astype(np.int32) * 3 - 40_000
FRACTIONS = INTEGERS.astype(np.float32) / 300
COLOURS = np.random.default_rng(11).integers(0, 256, (256, 3), np.uint8)
OPAQUE = np.full((H, W), 255, np.uint8)
THIN = OPAQUE.copy()
THIN[3, 5] = 254  # one pixel, by one level
FADING = (_X * 6).astype(np.uint8)
# What codecs that lose something keep well.
SMOOTH = np.dstack([_X * 6, _Y * 10, 255 - (_X + _Y) * 4]).astype(np.uint8)
SMOOTH_GREY = (_X * 4 + _Y * 4).astype(np.uint8)


@dataclass(frozen=True)
class Picture:
    """A kind of file, written in any EXIF orientation, or as it is where it cannot say one.

    `values` are what was drawn, before it is turned: RGB (H, W, 3) in 0 .. 255, or samples (H, W)
    of `depth` bits; None where there is no right 8-bit RGB. `odd` files may be refused all the
    same. Where a codec loses something, they are what another decoder reads, and `near` is what was
    drawn. `query` says what a raw buffer holds.
    """

    name: str
    media: str
    write: Callable[[int], bytes]
    values: Values | None
    depth: int = 8
    odd: bool = False
    turns: bool = True
    near: Values | None = None
    query: str = ""


def pictures() -> Iterator[Picture]:
    """All of them."""
    yield from _jpegs()
    yield from _pngs()
    yield from _pngs_that_are_clear()
    yield from _bmps_with_palettes()
    yield from _bmps()
    yield from _tiffs_of_bits()
    yield from _deep_tiffs()
    yield from _colour_tiffs()
    yield from _tiffs_by_pillow()
    yield from _webps()
    yield from _buffers()


def upright(values: Values, orientation: int) -> Values:
    """What a viewer shows: EXIF says where the file's first row and column belong."""
    rows, columns = {  # whether they are the last ones there
        1: (False, False), 2: (False, True), 3: (True, True), 4: (True, False),
        5: (False, False), 6: (False, True), 7: (True, True), 8: (True, False),
    }[orientation]  # fmt: skip
    if orientation > 4:  # rows are columns
        values = values.swapaxes(0, 1)
    return values[:: -1 if rows else 1, :: -1 if columns else 1]


def _jpegs() -> Iterator[Picture]:
    grey, colour, bits = SMOOTH_GREY, SMOOTH, SMOOTH_GREY > 90
    for name, image, drawn, options in (
        ("L", Image.fromarray(grey), _grey(grey), {}),
        ("1", Image.fromarray(bits), _grey(bits * 255), {}),
        ("RGB", Image.fromarray(colour), colour, {}),
        ("RGB, every pixel's colour", Image.fromarray(colour), colour, {"subsampling": 0}),
        ("RGB, progressive", Image.fromarray(colour), colour, {"progressive": True}),
        ("RGB, restarts", Image.fromarray(colour), colour, {"restart_marker_rows": 1}),
        ("RGB, kept as RGB", Image.fromarray(colour), colour, {"keep_rgb": True}),
        ("YCbCr", Image.fromarray(colour).convert("YCbCr"), colour, {}),
    ):
        data = saved(1, image=image, format="JPEG", quality=95, **options)
        for end, xmp in (("", False), (", XMP", True)):
            write = partial(jpeg, data=data, xmp=xmp)
            yield Picture(f"JPEG {name}{end}", "image/jpeg", write, _read(data), near=drawn)
    inks = np.dstack([colour, grey // 2])
    data = saved(1, image=Image.fromarray(inks, "CMYK"), format="JPEG", quality=98)
    with Image.open(BytesIO(data)) as image:
        read = np.asarray(image)
    write = partial(jpeg, data=data)
    yield Picture("JPEG CMYK", "image/jpeg", write, _mixed(read), near=_mixed(inks))


def _pngs() -> Iterator[Picture]:
    for bits in (1, 2, 4, 8):
        samples, levels, steps = _small(bits)
        for end, ways in (
            ("", {}), (", interlaced", {"interlaced": True}), (", EXIF last", {"late": True}),
        ):  # fmt: skip
            one = {"samples": samples, "bits": bits} | ways
            yield _png(f"grey of {bits}{end}", levels, colour=0, **one)
            yield _png(f"P of {bits}{end}", steps[samples], colour=3, palette=steps, **one)
    yield _png("RGB", COLOUR, samples=COLOUR, colour=2)
    yield _png("RGB, interlaced", COLOUR, samples=COLOUR, colour=2, interlaced=True)
    for depth in DEPTHS:
        deep = DEEP >> (16 - depth)
        yield _png(f"grey of 16, {depth} used", deep, 16, samples=deep, bits=16, colour=0)
    deep = {"samples": DEEP, "bits": 16, "colour": 0}
    yield _png("grey of 16, interlaced", DEEP, 16, interlaced=True, **deep)
    alpha = np.full_like(DEEP, 65535)
    for name, samples, colour in (
        ("LA", np.dstack([DEEP, alpha]), 4), ("RGB", DEEP_COLOUR, 2),
        ("RGBA", np.dstack([DEEP_COLOUR, alpha]), 6),
    ):  # fmt: skip
        yield _png(f"{name} of 16", None, 16, samples=samples, bits=16, colour=colour)
    for name, image, values, depth in _images():
        if name in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            write = partial(saved, image=image, format="PNG")
            yield Picture(f"PNG by Pillow, {name}", "image/png", write, values, depth)


def _pngs_that_are_clear() -> Iterator[Picture]:
    for bits in (1, 2, 4, 8):
        samples, _, steps = _small(bits)
        top = len(steps) - 1
        for level in sorted({0, 1, top}):
            clear = level.to_bytes(2, "big")
            one = {"samples": samples, "bits": bits}
            yield _png(f"grey of {bits}, {level} is clear", None, colour=0, clear=clear, **one)
        without = np.where(samples == 1, 0, samples).astype(np.uint8)
        levels = _grey(without * (255 // top))
        one = {"samples": without, "bits": bits}
        yield _png(f"grey of {bits}, 1 would be clear", levels, colour=0, clear=b"\0\1", **one)
        for name, shown, clear, values in (
            ("opaque", samples, b"\xff" * (top + 1), steps[samples]),
            ("0 is clear", samples, b"\0", None),
            (f"{top} is faint", samples, b"\xff" * top + b"\xfe", None),
            ("1 would be clear", without, b"\xff\0", steps[without]),
        ):
            one = {"samples": shown, "bits": bits, "palette": steps}
            yield _png(f"P of {bits}, {name}", values, colour=3, clear=clear, **one)
    present, absent = COLOUR[5, 5].astype(">u2").tobytes(), b"\0\1\0\2\0\3"
    yield _png("RGB, one is clear", None, samples=COLOUR, colour=2, clear=present)
    yield _png("RGB, one would be clear", COLOUR, samples=COLOUR, colour=2, clear=absent)
    deep = {"samples": DEEP, "bits": 16, "colour": 0}
    yield _png("grey of 16, 1 is clear", None, 16, clear=b"\0\1", **deep)
    yield _png("grey of 16, 3 would be clear", DEEP, 16, clear=b"\0\3", **deep)
    for name, alpha in (("opaque", OPAQUE), ("thin", THIN), ("fading", FADING)):
        grey, rgb = (_grey(GREY), COLOUR) if alpha is OPAQUE else (None, None)
        yield _png(f"LA, {name}", grey, samples=np.dstack([GREY, alpha]), colour=4)
        yield _png(f"RGBA, {name}", rgb, samples=np.dstack([COLOUR, alpha]), colour=6)


def _bmps_with_palettes() -> Iterator[Picture]:
    for bits in (1, 4, 8):
        samples, _, steps = _small(bits)
        numbers = np.arange(len(steps))
        greys = _grey(numbers * (255 // (len(steps) - 1)))
        for name, palette, odd in (
            ("P", steps, False), ("P, backwards", steps[::-1], False), ("greys", greys, False),
            ("greys, backwards", greys[::-1], False), ("numbers", _grey(numbers), bits == 4),
        ):  # fmt: skip
            for end, down in (("", False), (", top down", True)):
                one = {"samples": samples, "bits": bits, "palette": palette, "down": down}
                yield _bmp(f"{name} of {bits}{end}", palette[samples], odd=odd, **one)
        two = (GREY > 100).astype(np.uint8)
        for name, palette, odd in (
            ("black and white", greys[[0, -1]], bits > 1),
            ("white and black", greys[[-1, 0]], False), ("two colours", COLOURS[5:7], False),
        ):  # fmt: skip
            one = {"samples": two, "bits": bits, "palette": palette}
            yield _bmp(f"{name} of {bits}", palette[two], odd=odd, **one)
    for name, palette in (("P", COLOURS), ("greys", _grey(np.arange(256)))):
        one = {"samples": GREY, "bits": 8, "palette": palette, "runs": True}
        yield _bmp(f"{name} in runs", palette[GREY], **one)
    two = (GREY > 100).astype(np.uint8)
    one = {"samples": two, "bits": 8, "palette": _grey(np.array([0, 255])), "runs": True}
    yield _bmp("black and white in runs", _grey(two * 255), odd=True, **one)


def _bmps() -> Iterator[Picture]:
    red, green, blue = (COLOUR[..., channel].astype(np.uint32) for channel in range(3))
    for name, widths, masks in (
        ("555", (5, 5, 5), ()), ("555 by masks", (5, 5, 5), (0x7C00, 0x3E0, 0x1F)),
        ("565", (5, 6, 5), (0xF800, 0x7E0, 0x1F)),
    ):  # fmt: skip
        small = COLOUR.astype(int) >> (8 - np.array(widths))
        pixels = small[..., 0] << sum(widths[1:]) | small[..., 1] << widths[2] | small[..., 2]
        shown = small * 255 // ((1 << np.array(widths)) - 1)
        yield _bmp(name, shown, samples=pixels.astype("<u2"), bits=16, masks=masks)
    bgr = COLOUR[..., ::-1]
    yield _bmp("RGB", COLOUR, samples=bgr, bits=24)
    yield _bmp("RGB, top down", COLOUR, samples=bgr, bits=24, down=True)
    masks = (0xFF0000, 0xFF00, 0xFF)
    for name, fourth in (("0", FADING * 0), ("255", OPAQUE), ("fading", FADING)):
        one = {"samples": np.dstack([bgr, fourth]), "bits": 32}
        yield _bmp(f"RGBX, {name}", COLOUR, **one)
        yield _bmp(f"RGBX by masks, {name}", COLOUR, masks=masks, **one)
        shown = COLOUR if fourth is OPAQUE else None
        yield _bmp(f"RGBA, {name}", shown, masks=(*masks, 0xFF000000), header=124, **one)
    ten = (red << 22 | green << 12 | blue << 2).astype("<u4")
    masks = (0x3FF00000, 0xFFC00, 0x3FF)
    yield _bmp("of 10, 10 and 10", COLOUR, odd=True, samples=ten, bits=32, masks=masks)
    for name, image, values, _ in _images():
        if name in ("1", "L", "P", "RGB", "RGBA"):
            write = partial(_as_it_is, image=image, format="BMP")
            yield Picture(f"BMP by Pillow, {name}", "image/bmp", write, values, turns=False)


def _tiffs_of_bits() -> Iterator[Picture]:
    for bits, order, plane, fill in product((1, 2, 4, 8), "<>", (1, 2), (1, 2)):
        samples, levels, steps = _small(bits)
        data = packed(samples, bits)
        data = data if fill == 1 else mirrored(data)
        tags = {258: (bits,), 284: (plane,), 266: (fill,)}
        end = f"of {bits}, {order}, planes {plane}, fill {fill}"
        one = {"odd": plane == 2 or fill == 2, "order": order}
        yield _tiff(f"grey {end}", levels, [data], tags | {262: (1,)}, **one)
        yield _tiff(f"grey {end}, 0 white", 255 - levels, [data], tags | {262: (0,)}, **one)
        table = {320: tuple(int(value) * 257 for value in steps.T.ravel())}
        yield _tiff(f"P {end}", steps[samples], [data], tags | {262: (3,)} | table, **one)
        if bits == 8:
            yield _tiff(f"signed {end}", None, [data], tags | {262: (1,), 339: (2,)}, order=order)


def _deep_tiffs() -> Iterator[Picture]:
    tags = {258: (16,), 262: (1,)}
    for depth, order in product(DEPTHS, "<>"):
        deep = (DEEP >> (16 - depth)).astype(f"{order}u2")
        name, data = f"grey of 16, {depth} used, {order}", deep.tobytes()
        strips = [deep[y : y + 5].tobytes() for y in range(0, H, 5)]
        one: dict[str, Any] = {"depth": 16, "order": order}
        yield _tiff(name, deep, [data], tags, **one)
        yield _tiff(f"{name}, strips", deep, strips, tags | {278: (5,)}, **one)
        yield _tiff(f"{name}, 0 white", None, [data], tags | {262: (0,)}, **one)
        yield _tiff(f"{name}, signed", None, [data], tags | {339: (2,)}, **one)
        one["odd"] = True
        yield _tiff(f"{name}, a plane", deep, [data], tags | {284: (2,)}, **one)
        yield _tiff(f"{name}, mirrored", deep, [mirrored(data)], tags | {266: (2,)}, **one)
    twelve = DEEP >> 4
    tags = {258: (12,), 262: (1,)}
    yield _tiff("grey of 12", twelve, [packed(twelve, 12)], tags, depth=12, odd=True)
    tags[262] = (0,)
    white = 4095 - twelve
    yield _tiff("grey of 12, 0 white", white, [packed(twelve, 12)], tags, depth=12, odd=True)
    for order, black in product("<>", (0, 1)):
        for name, values, kind in (
            ("unsigned", DEEP.astype(f"{order}u4"), 1),
            ("signed", INTEGERS.astype(f"{order}i4"), 2),
            ("float", FRACTIONS.astype(f"{order}f4"), 3),
        ):  # fmt: skip
            tags = {258: (32,), 262: (black,), 339: (kind,)}
            end = f"of 32, {name}, {order}, {black}"
            yield _tiff(end, None, [values.tobytes()], tags, depth=32, order=order)


def _colour_tiffs() -> Iterator[Picture]:
    colour = {258: (8,) * 3, 262: (2,)}
    planes = [np.ascontiguousarray(COLOUR[..., channel]).tobytes() for channel in range(3)]
    strips = [COLOUR[y : y + 7].tobytes() for y in range(0, H, 7)]
    padded = np.pad(COLOUR, ((0, 8), (0, 8), (0, 0)))
    tiles = [padded[y : y + 16, x : x + 16].tobytes() for y in (0, 16) for x in (0, 16, 32)]
    whole = COLOUR.tobytes()
    for order in "<>":
        for name, parts, tags in (
            ("RGB", [whole], {}), ("RGB, strips", strips, {278: (7,)}),
            ("RGB, planes", planes, {284: (2,)}), ("RGB, tiles", tiles, {322: (16,), 323: (16,)}),
            ("RGB, mirrored", [mirrored(whole)], {266: (2,)}),
        ):  # fmt: skip
            yield _tiff(f"{name}, {order}", COLOUR, parts, colour | tags, order=order)
        for (name, alpha), extra in product(
            (("opaque", OPAQUE), ("thin", THIN), ("fading", FADING)), (None, 0, 1, 2)
        ):
            said = {} if extra is None else {338: (extra,)}
            end = f"another channel, {extra}, {name}, {order}"
            shown = extra == 0 or alpha is OPAQUE
            data = [np.dstack([COLOUR, alpha]).tobytes()]
            tags = {258: (8,) * 4, 262: (2,)} | said
            yield _tiff(f"RGB and {end}", COLOUR if shown else None, data, tags, order=order)
            data = [np.dstack([GREY, alpha]).tobytes()]
            tags, odd = {258: (8,) * 2, 262: (1,)} | said, extra in (None, 1)
            grey = _grey(GREY) if shown else None
            yield _tiff(f"grey and {end}", grey, data, tags, order=order, odd=odd)
        for name, samples, photometric in (
            ("RGB", DEEP_COLOUR, 2), ("CMYK", np.dstack([DEEP_COLOUR, DEEP]), 5),
        ):  # fmt: skip
            tags = {258: (16,) * samples.shape[2], 262: (photometric,)}
            data = [samples.astype(f"{order}u2").tobytes()]
            yield _tiff(f"{name} of 16, {order}", None, data, tags, depth=16, order=order)
    yield _tiff("YCbCr", None, [whole], {258: (8,) * 3, 262: (6,), 530: (1, 1)})


def _tiffs_by_pillow() -> Iterator[Picture]:
    compressions = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd")
    for compression, (name, image, values, depth) in product(compressions, _images()):
        yield _compressed(name, values, image=image, compression=compression, depth=depth)
    for compression in ("group3", "group4"):
        image = Image.fromarray(BITS)
        yield _compressed("1", _grey(BITS * 255), image=image, compression=compression)
    for name, image, drawn in (
        ("L", Image.fromarray(SMOOTH_GREY), _grey(SMOOTH_GREY)),
        ("RGB", Image.fromarray(SMOOTH), SMOOTH),
        ("YCbCr", Image.fromarray(SMOOTH).convert("YCbCr"), SMOOTH),
    ):
        options = {"image": image, "compression": "jpeg", "quality": 95}
        read = _read(saved(1, format="TIFF", **options))
        yield _compressed(name, read, near=drawn, **options)


def _webps() -> Iterator[Picture]:
    for name, values, shown in (
        ("RGB", COLOUR, COLOUR), ("grey", _grey(GREY), _grey(GREY)),
        ("RGBA", np.dstack([COLOUR, OPAQUE]), COLOUR),
        ("RGBA, thin", np.dstack([COLOUR, THIN]), None),
        ("RGBA, fading", np.dstack([COLOUR, FADING]), None),
    ):  # fmt: skip
        image = Image.fromarray(values)
        write = partial(saved, image=image, format="WEBP", lossless=True, exact=True)
        yield Picture(f"WEBP {name}, lossless", "image/webp", write, shown)
    for (name, values), quality in product(
        (("RGB", SMOOTH), ("grey", _grey(SMOOTH_GREY)), ("RGBA", np.dstack([SMOOTH, OPAQUE]))),
        (80, 95),
    ):
        write = partial(saved, image=Image.fromarray(values), format="WEBP", quality=quality)
        read, near = _read(write(1)), values[..., :3]
        yield Picture(f"WEBP {name}, {quality}", "image/webp", write, read, near=near)


def _buffers() -> Iterator[Picture]:
    def buffer(format: str, data: bytes, values: Values, depth: int = 8) -> Picture:
        return Picture(
            f"{format} of {depth}", "application/octet-stream", partial(_same, data=data), values,
            depth, turns=False, query=f"&width={W}&height={H}&pixel_format={format}",
        )  # fmt: skip

    yield buffer("Mono8", GREY.tobytes(), _grey(GREY))
    yield buffer("BGR8", COLOUR[..., ::-1].tobytes(), COLOUR)
    for depth in DEPTHS:
        deep = DEEP >> (16 - depth)
        yield Picture(
            f"Mono16, {depth} used", "application/octet-stream",
            partial(_same, data=deep.astype("<u2").tobytes()), deep, 16, turns=False,
            query=f"&width={W}&height={H}&pixel_format=Mono16",
        )  # fmt: skip
    mosaic = np.empty((H, W), np.uint8)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[row::2, column::2] = COLOUR[row::2, column::2, channel]
    yield buffer("BayerRG8", mosaic.tobytes(), _interpolated(mosaic))


def _interpolated(mosaic: Values) -> Values:
    """RGB of red at (0, 0), blue at (1, 1): what is missing is the mean of its neighbours; the
    edges are as the pixels beside them."""
    channels = []
    for places, weights in (
        ([(0, 0)], (1, 2, 4)), ([(0, 1), (1, 0)], (0, 1, 4)), ([(1, 1)], (1, 2, 4)),
    ):  # fmt: skip
        known = np.zeros((H, W))
        for row, column in places:
            known[row::2, column::2] = mosaic[row::2, column::2]
        corner, side, middle = weights
        total = np.zeros((H - 2, W - 2))
        for down, right in product(range(3), range(3)):
            weight = (corner, side, middle)[(down == 1) + (right == 1)]
            total += weight * known[down : H - 2 + down, right : W - 2 + right]
        channels.append(np.pad(total / 4, 1, mode="edge"))
    return np.dstack(channels)


def _images() -> Iterator[tuple[str, Image.Image, Values | None, int]]:
    """One of each mode of Pillow, what it shows, and its depth."""
    yield "1", Image.fromarray(BITS), _grey(BITS * 255), 8
    yield "L", Image.fromarray(GREY), _grey(GREY), 8
    yield "LA", Image.fromarray(np.dstack([GREY, OPAQUE])), _grey(GREY), 8
    yield "LA, fading", Image.fromarray(np.dstack([GREY, FADING])), None, 8
    paletted = Image.fromarray(GREY)
    paletted.putpalette(COLOURS.tobytes())
    yield "P", paletted, COLOURS[GREY], 8
    yield "PA", paletted.convert("PA"), COLOURS[GREY], 8
    yield "RGB", Image.fromarray(COLOUR), COLOUR, 8
    yield "RGBX", Image.fromarray(np.dstack([COLOUR, FADING]), "RGBX"), COLOUR, 8
    yield "RGBA", Image.fromarray(np.dstack([COLOUR, OPAQUE])), COLOUR, 8
    yield "RGBA, thin", Image.fromarray(np.dstack([COLOUR, THIN])), None, 8
    yield "CMYK", Image.fromarray(CMYK, "CMYK"), _mixed(CMYK), 8
    yield "LAB", Image.fromarray(COLOUR, "LAB"), None, 8
    yield "I", Image.fromarray(INTEGERS), None, 32
    yield "F", Image.fromarray(FRACTIONS), None, 32
    yield "I;16", Image.fromarray(DEEP), DEEP, 16
    yield "I;16B", Image.fromarray(DEEP.astype(">u2")), DEEP, 16


def _png(name: str, values: Values | None, depth: int = 8, **file: Any) -> Picture:
    return Picture(f"PNG {name}", "image/png", partial(png, **file), values, depth)


def _bmp(name: str, values: Values | None, *, odd: bool = False, **file: Any) -> Picture:
    write = partial(bmp, **file)
    return Picture(f"BMP {name}", "image/bmp", write, values, odd=odd, turns=False)


def _tiff(
    name: str, values: Values | None, parts: list[bytes], tags: dict[int, Any], *,
    depth: int = 8, odd: bool = False, order: str = "<",
) -> Picture:  # fmt: skip
    write = partial(tiff, parts=parts, tags=tags, order=order, size=(H, W))
    return Picture(f"TIFF {name}", "image/tiff", write, values, depth, odd)


def _compressed(
    name: str, values: Values | None, *, compression: str, near: Values | None = None,
    depth: int = 8, **options: Any,
) -> Picture:  # fmt: skip
    write = partial(saved, format="TIFF", compression=compression, **options)
    name = f"TIFF by Pillow, {name}, {compression}"
    return Picture(name, "image/tiff", write, values, depth, near=near)


def _as_it_is(_: int, **options: Any) -> bytes:
    return saved(1, **options)


def _same(_: int, *, data: bytes) -> bytes:
    return data


def _small(bits: int) -> tuple[Values, Values, Values]:
    """Samples of so many bits, what they are as grey, and a palette for them."""
    top = (1 << bits) - 1
    samples = GREY >> (8 - bits)
    return samples, _grey(samples * (255 // top)), COLOURS[: top + 1]


def _grey(values: Values) -> Values:
    return np.repeat(values[..., None], 3, axis=-1).astype(np.uint8)


def _mixed(inks: Values) -> Values:
    left = 255.0 - inks
    return np.asarray(left[..., :3] * left[..., 3:] / 255)


def _read(data: bytes) -> Values:
    """By OpenCV, as it is stored."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), flags))
