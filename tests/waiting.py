"""Waiting for what nobody tells of."""

import time
from collections.abc import Callable


def until(holds: Callable[[], object]) -> None:
    """Ask again and again, for twenty seconds."""
    for _ in range(400):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it never held")
