"""What a gate finds."""

from collections.abc import Callable
from dataclasses import dataclass, field

from models.errors import KizuError


class CannotRun(KizuError):
    """What a gate needs is not to be had on this machine."""


@dataclass
class Findings:
    """How much was tried and what did not hold. All randomness comes from `seed`."""

    seed: int = 0
    counts: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def count(self, what: str, by: float = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + by

    def most(self, what: str, value: float) -> None:
        self.counts[what] = max(self.counts.get(what, 0.0), value)

    def fail(self, what: str) -> None:
        self.count("failed")
        if len(self.failures) < 20:
            self.failures.append(what)


# The full form, or a short one for every test run; and how far it is, from 0 to 1.
Gate = Callable[[bool, Callable[[float], None]], Findings]
