"""How long a run of the device takes, learned while it serves."""

# What a run still counts for after the next one: some twenty runs are remembered.
_KEPT = 0.95


class ServiceTime:
    """Seconds of a run of n items, fitted as a + b·n by least squares; the newest count most.

    Both a and b are at least 0: as long as only one size was seen, items are taken to cost alike.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._n = self._nn = self._t = self._nt = 0.0  # weighted means

    def learn(self, count: int, seconds: float) -> None:
        """Take note of a run."""
        self._weight = self._weight * _KEPT + 1
        new = 1 / self._weight
        self._n += new * (count - self._n)
        self._nn += new * (count * count - self._nn)
        self._t += new * (seconds - self._t)
        self._nt += new * (count * seconds - self._nt)

    def of(self, count: int) -> float:
        """Expected seconds of a run of `count` items; 0 before the first one."""
        if not self._weight:
            return 0.0
        variance = self._nn - self._n**2
        alike = self._t / self._n
        if variance < 1e-6:
            return alike * count
        each = min(max((self._nt - self._n * self._t) / variance, 0.0), alike)
        return self._t + each * (count - self._n)
