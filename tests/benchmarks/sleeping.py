"""An engine of known speed, which leaves the processor alone."""

import time

from models.image import Pixels
from service.engine import FakeEngine

FIRST_S, EACH_S = 0.04, 0.02


def sleep(images: Pixels) -> None:
    """As long as a run takes."""
    time.sleep(FIRST_S + EACH_S * len(images))


def sleeping(_: object) -> FakeEngine:
    """For any bundle."""
    return FakeEngine(before=sleep)
