"""What each camera's images came to since the service started."""

import threading
from collections import Counter
from dataclasses import dataclass, field, replace

# A sender can name any number of cameras; what came after so many counts as one.
MOST = 256
OTHERS = "others"


@dataclass(frozen=True)
class Counts:
    """Of one camera: images that came, their outcomes, and seconds from arrival to answer.

    `outcomes` has `ok`, `review`, `ng` and `error`.
    """

    triggers: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    least_s: float = float("inf")
    total_s: float = 0.0
    most_s: float = 0.0

    @property
    def mean_s(self) -> float:
        """0 where no image came."""
        return self.total_s / self.triggers if self.triggers else 0.0


class Cameras:
    """Counts by camera; images that name none count as the camera ''."""

    def __init__(self) -> None:
        self._counts: dict[str, Counts] = {}
        self._lock = threading.Lock()

    @property
    def counts(self) -> dict[str, Counts]:
        """Of each camera as it stands."""
        with self._lock:
            return dict(self._counts)

    def count(self, camera: str | None, outcome: str, seconds: float) -> None:
        """One more image."""
        with self._lock:
            name = camera or ""
            if name not in self._counts and len(self._counts) >= MOST:
                name = OTHERS
            before = self._counts.get(name, Counts())
            self._counts[name] = replace(
                before,
                triggers=before.triggers + 1,
                outcomes=before.outcomes + Counter([outcome]),
                least_s=min(before.least_s, seconds),
                total_s=before.total_s + seconds,
                most_s=max(before.most_s, seconds),
            )
