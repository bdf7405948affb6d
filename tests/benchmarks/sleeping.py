"""Engines of known speed, which leave the processor alone."""

import time
from dataclasses import dataclass

from models.image import Pixels
from service.engine import FakeEngine


@dataclass(frozen=True)
class Sleeping:
    """Opens one for any bundle: a run takes as long, and longer by each image."""

    run_s: float = 0.04
    image_s: float = 0.02

    def __call__(self, _: object) -> FakeEngine:
        return FakeEngine(before=self._sleep)

    def per_second(self, batch: int) -> float:
        """Images, so many at a time."""
        return batch / (self.run_s + batch * self.image_s)

    def _sleep(self, images: Pixels) -> None:
        time.sleep(self.run_s + self.image_s * len(images))
