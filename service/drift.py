"""Whether images still look as those did that a bundle was trained on, by camera.

Of each measure the range is known that held 98 of 100 good parts then. Light that fades or a lens
that moves puts far more images outside of it, long before anybody sees it.
"""

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.bundle import Manifest
from service.cameras import MOST, OTHERS
from service.store.tables import Inspection

WINDOW = 200  # images of a camera
LEAST = 30
# Of good parts 2 % lie outside, and of 30 images even 5 would do so by chance in one of 3000 looks.
ALARMING = 0.2
# Of a score, only what is too high is strange, and defects are: the median is looked at instead.
_SCORE_MEDIAN = 0.95

Measure = Literal["score", "brightness", "focus", "saturated"]
MEASURES: tuple[Measure, ...] = ("score", "brightness", "focus", "saturated")
DriftState = Literal["steady", "drifting", "unknown"]


@dataclass(frozen=True)
class Trend:
    """Of one measure: quantiles 5 %, 50 % and 95 % lately, the range in training (1 % to 99 %), and
    the share of images outside of it; of scores, above it."""

    measure: Measure
    state: DriftState
    recent: tuple[float, float, float]
    low: float | None
    high: float | None
    outside: float | None


@dataclass(frozen=True)
class CameraDrift:
    """One camera's last images of one recipe."""

    recipe: str
    camera: str
    images: int
    trends: tuple[Trend, ...]

    @property
    def state(self) -> DriftState:
        """Drifting as soon as one measure is."""
        states = {trend.state for trend in self.trends}
        return next(s for s in ("drifting", "steady", "unknown") if s in states)


@dataclass
class _Window:
    digest: str
    values: deque[tuple[float, ...]]


class Drift:
    """The last images of each camera, by recipe; those of another bundle do not count.

    Cameras that came after so many others count as one.
    """

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], _Window] = {}
        self._lock = threading.Lock()

    def begin(self, rows: Iterable[Inspection]) -> None:
        """Start with what was inspected before, the oldest first."""
        for row in rows:
            self.add(row)

    def add(self, row: Inspection) -> None:
        """One more image."""
        if row.simulated or row.brightness is None or row.focus is None or row.saturated is None:
            return
        key = row.recipe, row.camera or ""
        values = row.score, row.brightness, row.focus, row.saturated
        with self._lock:
            if key not in self._windows and len(self._windows) >= MOST:
                key = row.recipe, OTHERS
            window = self._windows.get(key)
            if window is None or window.digest != row.bundle_digest:
                window = self._windows[key] = _Window(row.bundle_digest, deque(maxlen=WINDOW))
            window.values.append(values)

    def report(self, manifests: Mapping[str, Manifest]) -> list[CameraDrift]:
        """Of each camera, against what the bundle that decides was trained on."""
        with self._lock:
            windows = {key: list(window.values) for key, window in self._windows.items()}
        return [
            CameraDrift(recipe, camera, len(values), _trends(np.array(values), manifests[recipe]))
            for (recipe, camera), values in sorted(windows.items())
            if recipe in manifests
        ]


def _trends(values: np.ndarray, manifest: Manifest) -> tuple[Trend, ...]:
    return tuple(
        _trend(measure, values[:, column], _trained(measure, manifest))
        for column, measure in enumerate(MEASURES)
    )


def _trained(measure: Measure, manifest: Manifest) -> Sequence[float] | None:
    if measure == "score":
        return manifest.calibration.quantiles
    if manifest.appearance is None:
        return None
    found: Sequence[float] = getattr(manifest.appearance, measure)
    return found


def _trend(measure: Measure, values: np.ndarray, trained: Sequence[float] | None) -> Trend:
    low, middle, high = (float(value) for value in np.quantile(values, (0.05, 0.5, 0.95)))
    recent = (low, middle, high)
    if trained is None:
        return Trend(measure, "unknown", recent, None, None, None)
    least, most = float(trained[1]), float(trained[99])
    if measure == "score":  # too good is no harm
        outside = float((values > most).mean())
        strange = bool(middle > np.quantile(trained, _SCORE_MEDIAN))
    else:
        outside = float(((values < least) | (values > most)).mean())
        strange = outside > ALARMING
    known = len(values) >= LEAST
    state: DriftState = "unknown" if not known else "drifting" if strange else "steady"
    return Trend(measure, state, recent, least, most, round(outside, 4))
