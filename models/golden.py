"""Golden vectors: inputs with the outputs that training saw, replayed on every device."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.image import Pixels
from models.session import Precision

SCORE_TOLERANCE = 1e-3
HEATMAP_TOLERANCE = 1e-2
# Besides, shares of a score, and of a heatmap's largest value. Of five models on an H100, replayed
# against a CPU, scores and heatmaps differed by up to 0.006 %, and by 0.1 % with TF32. Three whose
# backbones were computed in float16 differed by 0.1 to 3.5 % in their scores.
SHARES: dict[Precision, float] = {"fp32": 3e-4, "fp16": 1e-2}

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    """`images` uint8 (B, H, W, 3) with their `scores` (B) and `heatmaps` (B, h, w)."""

    images: Pixels
    scores: Floats
    heatmaps: Floats

    @property
    def first(self) -> "Golden":
        """The first of them alone, with memory of its own."""
        return Golden(self.images[:1].copy(), self.scores[:1].copy(), self.heatmaps[:1].copy())

    def disagreement(
        self, scores: Floats, heatmaps: Floats, *, precision: Precision = "fp32"
    ) -> str | None:
        """How another run differs beyond the tolerance, in words; None where it agrees."""
        for what, expected, got, tolerance in (
            ("score", self.scores, scores, SCORE_TOLERANCE),
            ("heatmap", self.heatmaps, heatmaps, HEATMAP_TOLERANCE),
        ):
            if expected.shape != got.shape:
                return f"{what} has the shape {got.shape} instead of {expected.shape}"
            if not expected.size:
                return f"{what} has no number to compare with"
            each = expected.reshape(len(expected), -1)
            with np.errstate(invalid="ignore"):  # two equal infinities differ by NaN
                gaps = np.abs(each - got.reshape(each.shape)).max(axis=1)
                allowed = tolerance + SHARES[precision] * np.abs(each).max(axis=1)
                worst = int(np.argmax(gaps - allowed))
            if not gaps[worst] <= allowed[worst]:  # written so that NaN disagrees
                return f"{what} differs by {gaps[worst]:.2g}, allowed is {allowed[worst]:g}"
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
