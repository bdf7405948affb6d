"""Waiting for what nobody tells of."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(holds: Callable[[], T], longest_s: float = 60.0) -> T:  # a busy machine is not broken
    """Ask again and again; what it said in the end."""
    ends = time.monotonic() + longest_s
    while not (found := holds()):
        if time.monotonic() > ends:
            raise AssertionError("it never held")
        time.sleep(0.02)
    return found
