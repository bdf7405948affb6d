"""How long an inspection takes, by step."""

import time


class Stopwatch:
    """Milliseconds by step, each from the end of the one before."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.times: dict[str, float] = {}

    def lap(self, step: str, **inner_s: float) -> None:
        """End a step; what was done within it, in seconds, counts apart."""
        now = time.perf_counter()
        took = now - self._last - sum(inner_s.values())
        self._last = now
        for name, seconds in {step: max(took, 0.0), **inner_s}.items():
            self.times[name] = round(1000 * seconds, 3)
