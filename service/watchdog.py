"""Whether the device still does what it did when its bundles were loaded.

Golden images go through the very queue that parts go through, every now and then, and at once
when a run fails. A device that errs, hangs or answers wrong is given up: from then on nothing is
answered but errors, until another process takes over. One that is elsewhere and away says nothing
about itself: it is asked again and again.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass

import numpy as np
import structlog

from models.session import Precision
from service.errors import DeadlinePassed, NotReady
from service.registry import Loaded
from service.scoring import ImageBatcher, Scored

log = structlog.get_logger()

_TICK_S = 1.0


class Watchdog:
    """Watches one device by the models that are `watched`. `give_up` is called once, on a thread of
    its own, when it is lost."""

    def __init__(
        self,
        watched: Callable[[], Iterable[Loaded]],
        batcher: ImageBatcher,
        *,
        every_s: float,
        hang_s: float,
        precision: Precision,
        give_up: Callable[[], None],
    ) -> None:
        self._watched = watched
        self._batcher = batcher
        self._every_s = every_s
        self._hang_s = hang_s
        self._precision = precision
        self._give_up = give_up
        self._problem: str | None = None
        self._absence: str | None = None
        self._suspected = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="kizu-watchdog", daemon=True)

    @property
    def problem(self) -> str | None:
        """Why the device is not to be trusted any more."""
        return self._problem

    @property
    def absence(self) -> str | None:
        """Why there is no device just now."""
        return self._absence

    def check(self) -> None:
        """Raise NotReady once the device is lost."""
        if self._problem:
            raise _lost()

    def suspect(self) -> None:
        """Look at the device now."""
        self._suspected.set()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._suspected.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _loop(self) -> None:
        due = time.monotonic() + self._every_s
        while not self._stop.is_set():
            left = max(0.0, due - time.monotonic())
            asked = self._suspected.wait(min(_TICK_S, left))
            problem = self._hanging()
            if not problem and not self._stop.is_set() and (asked or time.monotonic() >= due):
                self._suspected.clear()
                try:
                    problem = self._look()
                except Exception as error:  # noqa: BLE001 - what cannot be watched is not trusted
                    problem = f"It cannot be looked at: {error}"
                due = time.monotonic() + (_TICK_S if self._absence else self._every_s)
            if problem:
                self._problem = problem
                log.critical("the device is given up", reason=problem)
                self._batcher.give_up(_lost())  # nobody need wait for a run that hangs
                self._give_up()
                return

    def _hanging(self) -> str | None:
        took = self._batcher.running_s
        return f"A run has not ended after {took:.0f} s." if took > self._hang_s else None

    def _look(self) -> str | None:
        """What is wrong with what any model's golden images give now."""
        away: str | None = None
        for loaded in self._watched():
            problem = self._look_at(loaded)
            if isinstance(problem, _Away):
                away = away or problem.reason
            elif problem:
                manifest = loaded.bundle.manifest
                return f"{manifest.recipe}, version {manifest.version}: {problem}"
        self._notice(away)
        return None

    def _look_at(self, loaded: Loaded) -> "str | _Away | None":
        found = self._score(loaded)
        if isinstance(found, _Failed) and not self._hanging():
            found = self._score(loaded)  # what happens once is over; what goes on fails twice
        if isinstance(found, _Away):
            return found
        if isinstance(found, _Failed):
            return found.reason
        if found is None:
            return None
        score, heatmap = np.array([found.score], np.float32), found.heatmap[None]
        return loaded.known.disagreement(score, heatmap, precision=self._precision)

    def _notice(self, absence: str | None) -> None:
        if absence and not self._absence:
            log.warning("the device is away", reason=absence)
        elif self._absence and not absence:
            log.info("the device is there again")
        self._absence = absence

    def _score(self, loaded: Loaded) -> "Scored | _Away | _Failed | None":
        """Of the image that it knows; None where the service is closing."""
        try:
            future = self._batcher.submit(
                loaded, loaded.known.images[0], deadline=math.inf, priority="first"
            )
        except NotReady:
            return None
        while not self._stop.is_set():
            try:
                return future.result(_TICK_S)
            except NotYet:
                problem = self._hanging()
                if problem:
                    return _Failed(problem)
            except (DeadlinePassed, NotReady) as error:
                return _Away(str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the device did not answer
                return _Failed(f"It failed on an image that it knows: {error}")
        return None


@dataclass(frozen=True)
class _Away:
    """None was there to be asked."""

    reason: str


@dataclass(frozen=True)
class _Failed:
    """A device that gave nothing."""

    reason: str


def _lost() -> NotReady:
    return NotReady(
        "The device does not work properly; the service restarts.",
        remedy="Treat the part as not inspected, and send it again soon.",
    )
