"""Waiting for what nobody tells of."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONGEST_S = 60.0  # a busy machine is not a broken one


def until(holds: Callable[[], T]) -> T:
    """Ask again and again, for a minute; what it said in the end."""
    ends = time.monotonic() + LONGEST_S
    while not (found := holds()):
        if time.monotonic() > ends:
            raise AssertionError("it never held")
        time.sleep(0.02)
    return found
