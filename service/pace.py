"""How many images are under way, and how fast they are done when many are."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# What a figure still counts for after the next one: some twenty are remembered.
_KEPT = 0.95
# Before so many intervals are known, one of them could be all that an estimate stands on: a disk
# that stalls for a second is no pace.
_FEW = 3
# Without a new interval for so long, or for so many intervals, nothing is known any more. Else an
# estimate that is too high would keep out those who could mend it.
_OLD_S, _OLD_INTERVALS = 1.0, 10
# Waits that are so many mean deviations longer than expected are rare.
_DEVIATIONS = 2


@dataclass(frozen=True)
class Way:
    """One image's, from its arrival on."""

    began: float
    expected_s: float


class Pace:
    """Of one process; used on its event loop alone.

    `at_once` images keep the device busy. Only while more than those are under way do the
    intervals between verdicts tell what an image costs.
    """

    def __init__(self, at_once: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.under_way = 0
        self._at_once = at_once
        self._clock = clock
        self._interval_s = 0.0
        self._intervals = 0
        self._deviation_s = 0.0
        self._learned = 0.0
        self._last: float | None = None  # verdict, if it has been busy since

    @property
    def within_s(self) -> float:
        """Seconds within which one more would have its verdict, most likely; 0 where it need not
        wait, or before anything is known."""
        if self.under_way < self._at_once or self._is_old or self._intervals < _FEW:
            return 0.0
        return self._expected_s + _DEVIATIONS * self._deviation_s

    @property
    def _expected_s(self) -> float:
        return 0.0 if self._is_old else (self.under_way + 1) * self._interval_s

    @property
    def _is_old(self) -> bool:
        old_s = max(_OLD_S, _OLD_INTERVALS * self._interval_s)
        return self._clock() - self._learned > old_s

    @contextmanager
    def one(self) -> Iterator[Way]:
        """Around the whole of an image's way."""
        way = Way(self._clock(), self._expected_s)
        self.under_way += 1
        try:
            yield way
        finally:
            self.under_way -= 1
            if self.under_way < self._at_once:
                self._last = None

    def done(self, way: Way) -> None:
        """One of those under way has its verdict."""
        if self.under_way <= self._at_once:
            return
        now = self._clock()
        if self._is_old:
            self._interval_s = self._deviation_s = 0.0
            self._intervals = 0
        if way.expected_s:
            missed = abs(now - way.began - way.expected_s)
            self._deviation_s = _KEPT * self._deviation_s + (1 - _KEPT) * missed
        if self._last is not None:
            # The mean of the first ones, and then of those remembered.
            kept = min(_KEPT, self._intervals / (self._intervals + 1))
            self._interval_s = kept * self._interval_s + (1 - kept) * (now - self._last)
            self._intervals += 1
            self._learned = now
        self._last = now
