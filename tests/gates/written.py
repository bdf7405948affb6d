"""Image files written byte by byte, in ways that no library of ours writes them."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Values = NDArray[Any]

_ADAM7 = (
    (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
    (1, 0, 2, 1),
)  # fmt: skip
_XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="{}"/></x:xmpmeta>'


def saved(orientation: int, *, image: Image.Image, format: str, **options: Any) -> bytes:
    """By Pillow, with the orientation as it writes that."""
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(orientation: int, *, data: bytes, xmp: bool = False) -> bytes:
    """The file `data` with an orientation."""
    if orientation == 1:
        return data
    said = b"http://ns.adobe.com/xap/1.0/\0" + _XMP.format(orientation).encode()
    if not xmp:
        said = b"Exif\0\0" + _exif(orientation)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(said) + 2) + said + data[2:]


def png(
    orientation: int,
    *,
    samples: Values,
    colour: int,
    bits: int = 8,
    palette: Values | None = None,
    clear: bytes = b"",
    interlaced: bool = False,
    late: bool = False,
) -> bytes:
    """Of colour type `colour`; with a tRNS chunk, and its orientation after the pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        said = kind + data
        return struct.pack(">I", len(data)) + said + struct.pack(">I", zlib.crc32(said))

    rows = bytearray()
    for top, left, down, right in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        for row in samples[top::down, left::right]:
            rows += b"\0" + packed(row.astype(">u2")[None] if bits == 16 else row[None], bits)
    height, width = samples.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    chunks = [chunk(b"IHDR", head)]
    if palette is not None:
        chunks.append(chunk(b"PLTE", palette.tobytes()))
    if clear:
        chunks.append(chunk(b"tRNS", clear))
    chunks.append(chunk(b"IDAT", zlib.compress(rows)))
    if orientation != 1:
        chunks.insert(len(chunks) if late else 1, chunk(b"eXIf", _exif(orientation)))
    return b"".join([b"\x89PNG\r\n\x1a\n", *chunks, chunk(b"IEND", b"")])


def bmp(
    _: int,
    *,
    samples: Values,
    bits: int,
    palette: Values | None = None,
    masks: tuple[int, ...] = (),
    down: bool = False,
    runs: bool = False,
    header: int = 40,
) -> bytes:
    """From the bottom up, or `down`; by bit masks; as runs of one pixel each."""
    height, width = samples.shape[:2]
    rows = samples if down else samples[::-1]
    if runs:
        data = b"".join(bytes(b for v in row for b in (1, int(v))) + b"\0\0" for row in rows)
        data += b"\0\1"
    else:
        padding = bytes((width * bits // -8) % 4)
        data = b"".join(packed(row[None], min(bits, 8)) + padding for row in rows)
    colours = b""
    if palette is not None:
        colours = np.pad(palette[:, ::-1], ((0, 0), (0, 1))).tobytes()
    head = struct.pack(
        "<IiiHHIIiiII", header, width, -height if down else height, 1, bits,
        1 if runs else 3 if masks else 0, len(data), 0, 0, len(colours) // 4, 0,
    )  # fmt: skip
    head = (head + struct.pack(f"<{len(masks)}I", *masks)).ljust(header, b"\0") + colours
    start = 14 + len(head)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + head + data


def tiff(
    orientation: int, *, parts: list[bytes], size: tuple[int, int], order: str,
    tags: dict[int, tuple[int, ...]],
) -> bytes:  # fmt: skip
    """Uncompressed, of this height and width; strips, planes or tiles are the parts."""
    starts = np.cumsum([8, *(len(part) for part in parts)])
    place, length = (324, 325) if 322 in tags else (273, 279)
    tags = {
        256: size[1:], 257: size[:1], 259: (1,), 274: (orientation,), 277: (len(tags[258]),),
        278: size[:1], place: tuple(int(start) for start in starts[:-1]),
        length: tuple(len(part) for part in parts), **tags,
    }  # fmt: skip
    body, fields = b"".join(parts), b""
    for tag, values in sorted(tags.items()):
        kind, number = ("H", 3) if max(values) < 65536 else ("I", 4)
        data = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(data) > 4:
            body += bytes(len(body) % 2)
            body, data = body + data, struct.pack(f"{order}I", 8 + len(body))
        fields += struct.pack(f"{order}HHI", tag, number, len(values)) + data.ljust(4, b"\0")
    body += bytes(len(body) % 2)
    directory = struct.pack(f"{order}H", len(tags)) + fields + bytes(4)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", 8 + len(body)) + body + directory


def packed(values: Values, bits: int) -> bytes:
    """Rows of samples (H, W), each beginning with a byte of its own."""
    if bits % 8 == 0:
        return values.tobytes()
    spread = values[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(spread.reshape(len(values), -1), axis=1).tobytes()


def mirrored(data: bytes) -> bytes:
    """Each byte's bits in reverse."""
    return np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little").tobytes()


def _exif(orientation: int) -> bytes:
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
