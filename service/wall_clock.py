"""Whether the clock on the wall may be asked how old things are."""

import threading
import time
from collections.abc import Callable

# NTP moves it by less, and what is kept for days does not mind.
_MOVED_S = 60.0
BELIEVED_AFTER_S = 24 * 3600.0


class WallClock:
    """A clock that was set forward makes all things old at once, and what is removed for it does
    not come back when it is set right. So it is believed a day later, unless it was set back."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        even: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        """`even` goes on while the computer sleeps, and nobody sets it."""
        self._wall = wall
        self._even = even
        self._ahead = wall() - even()
        self._set_forward: float | None = None
        self._lock = threading.Lock()

    def believed(self) -> float | None:
        """Seconds since 1970; None while they may be wrong."""
        with self._lock:
            now, even = self._wall(), self._even()
            ahead = now - even
            if ahead > self._ahead + _MOVED_S:
                if self._set_forward is None:
                    self._set_forward = even
                if even - self._set_forward < BELIEVED_AFTER_S:
                    return None
            self._ahead, self._set_forward = ahead, None
            return now
