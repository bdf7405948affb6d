"""What runs a bundle: the seam between the service and any device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.image import Pixels

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Outputs:
    """Raw scores (B) and heatmaps (B, h, w) of a batch."""

    scores: Floats
    heatmaps: Floats


class Engine(Protocol):
    """A loaded model on a device. One thread at a time calls `run`."""

    @property
    def device(self) -> str:
        """What really runs it, such as `CPUExecutionProvider`."""
        ...

    def run(self, images: Pixels) -> Outputs:
        """Score uint8 (B, H, W, 3) images of the bundle's input size."""
        ...


class FakeEngine:
    """An engine whose score is the image's mean; for tests of everything around an engine."""

    device = "fake"

    def __init__(self, before: Callable[[Pixels], None] = lambda images: None) -> None:
        self._before = before

    def run(self, images: Pixels) -> Outputs:
        self._before(images)
        values = images.mean(axis=3, dtype=np.float32)
        return Outputs(values.mean(axis=(1, 2)), values)
