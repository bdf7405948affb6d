"""Golden vectors: inputs with the outputs that training saw, replayed on every device."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.image import Pixels

SCORE_TOLERANCE = 1e-3
HEATMAP_TOLERANCE = 1e-2

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    """`images` uint8 (B, H, W, 3) with their `scores` (B) and `heatmaps` (B, h, w)."""

    images: Pixels
    scores: Floats
    heatmaps: Floats

    def disagreement(self, scores: Floats, heatmaps: Floats) -> str | None:
        """How another run differs beyond the tolerance, in words; None where it agrees."""
        for what, expected, got, tolerance in (
            ("score", self.scores, scores, SCORE_TOLERANCE),
            ("heatmap", self.heatmaps, heatmaps, HEATMAP_TOLERANCE),
        ):
            if expected.shape != got.shape:
                return f"{what} has the shape {got.shape} instead of {expected.shape}"
            with np.errstate(invalid="ignore"):  # two equal infinities differ by NaN
                gap = float(np.max(np.abs(expected - got), initial=0.0))
            if not gap <= tolerance:  # written so that NaN disagrees
                return f"{what} differs by {gap:.2g}, allowed is {tolerance:g}"
        return None

    def to_bytes(self) -> bytes:
        """The vectors as a compressed npz file."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, images=self.images, scores=self.scores, heatmaps=self.heatmaps)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Golden":
        """Read `to_bytes` back; no pickled objects are accepted."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return cls(arrays["images"], arrays["scores"], arrays["heatmaps"])
