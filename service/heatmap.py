"""Heatmaps as files: kept as 16-bit PNG over their own range, rendered on request."""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.bundle import Thresholds
from models.image import Pixels, encode_png
from service.engine import Floats

STEPS = 65535
_UP = 2  # PNG's filter of differences from the row above

# From what is hardly suspicious to what is most: lighter with every step, so that whoever sees no
# hues, and a grey print, tell them apart.
_RAMP = ((0, (50, 10, 95)), (90, (170, 40, 95)), (180, (245, 125, 20)), (255, (252, 250, 165)))
_COLOURS = np.stack(
    [
        np.interp(np.arange(256), [at for at, _ in _RAMP], [colour[i] for _, colour in _RAMP])
        for i in range(3)
    ],
    axis=1,
).astype(np.float32)


@dataclass(frozen=True)
class KeptHeatmap:
    """A heatmap as stored: `png` holds 0..65535, linear from `low` to `high`, both raw values."""

    png: bytes
    low: float
    high: float


def keep(heatmap: Floats) -> KeptHeatmap:
    """Encode a heatmap (h, w); what comes back differs by at most (high - low) / 131070."""
    low, high = float(heatmap.min()), float(heatmap.max())
    span = (high - low) or 1.0
    levels = np.rint((heatmap.astype(np.float64) - low) * (STEPS / span)).astype(np.uint16)
    return KeptHeatmap(_encode(levels), low, high)


def _encode(levels: NDArray[np.uint16]) -> bytes:
    """16-bit PNG, written here since Pillow takes three times as long. Huffman codes
    alone: smooth heatmaps have no matches to search for. Each row as its difference from the one
    above: a choice for each row makes it 5 % smaller, in three times the time."""
    height, width = levels.shape
    rows = levels.astype(">u2").view(np.uint8)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    packed = packer.compress(filtered.data) + packer.flush()
    header = struct.pack(">2I5B", width, height, 16, 0, 0, 0, 0)  # 16-bit grey
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", packed), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def restore(kept: KeptHeatmap) -> Floats:
    """Raw values float32 (h, w) from a kept heatmap."""
    with Image.open(io.BytesIO(kept.png), formats=["PNG"]) as image:
        levels = np.asarray(image, np.float64)
    values: Floats = (kept.low + levels * ((kept.high - kept.low) / STEPS)).astype(np.float32)
    return values


def png8(kept: KeptHeatmap) -> bytes:
    """8-bit grey PNG, linear from `low` (0) to `high` (255)."""
    span = (kept.high - kept.low) or 1.0
    return encode_png(np.rint((restore(kept) - kept.low) * (255 / span)).astype(np.uint8))


def npy(kept: KeptHeatmap) -> bytes:
    """Raw values as a NumPy file, float32 (h, w)."""
    buffer = io.BytesIO()
    np.save(buffer, restore(kept), allow_pickle=False)
    return buffer.getvalue()


def overlay(image: Pixels, kept: KeptHeatmap, thresholds: Thresholds) -> bytes:
    """JPEG of the image with what is suspicious in colour: clear below half the review line.

    JPEG, since a full-size PNG costs twenty times more.
    """
    height, width = image.shape[:2]
    small = Image.fromarray(restore(kept))
    values = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
    start = 0.5 * thresholds.review
    heat = np.clip((values - start) / max(thresholds.highest * 1.3 - start, 1e-6), 0, 1)
    colours = _COLOURS[(heat * 255).astype(np.uint8)]
    share = (0.75 * heat)[..., None]
    mixed = np.rint(image * (1 - share) + colours * share).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(mixed).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
