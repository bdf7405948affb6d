"""Many do what changes something, all at the same moment and to the same few things, while versions
appear and services look for them: what stands in the end is what some order would have made."""

import base64
import itertools
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from models.image import encode_png
from service.registry import SYSTEM
from service.store import audit, records
from service.store.tables import (
    Candidacy,
    Feedback,
    Inspection,
    Promotion,
    RecipeRevision,
    ReviewItem,
    Training,
)
from tests.gates.gate import Findings
from tests.gates.nursery import Nursery
from tests.grey_parts import HEIGHT, PNG, WIDTH, image, write_version
from tests.postgresql import postgresql
from tests.waiting import until

HANDS = 10
RECIPES = ("cap", "lid")
NUMBERS = (1, 2)  # by which a PLC selects one of both
NEW_S = 0.3  # between versions
_MASK = encode_png(np.full((HEIGHT, WIDTH), 255, np.uint8))
_WHO = {"by": "eva", "reason": "a collision"}


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """On SQLite one service, on PostgreSQL two."""
    found = Findings(seed=14)
    seconds = 300.0 if full else 5.0
    for step, services in enumerate((1, 2)):
        with tempfile.TemporaryDirectory() as name, _line(Path(name), services) as line:
            _collide(found, line, seconds)
            _check(found, line)
        progress((step + 1) / 2)
    return found


class _Line:
    """Services with one store and one database, and what they acknowledged."""

    def __init__(self, folder: Path, database: str, services: Sequence[Nursery]) -> None:
        self.store = folder / "store"
        self.database = database
        self.addresses = [one.address for one in services]
        self.newest = 1
        self.parts: deque[str] = deque(maxlen=4)
        self.trainings: deque[str] = deque(maxlen=3)
        self.labels: set[str] = set()
        self.results: dict[str, str] = {}  # by the key under which one was asked for


@contextmanager
def _line(folder: Path, services: int) -> Iterator[_Line]:
    for recipe in RECIPES:
        write_version(folder / "store", recipe=recipe)
    with ExitStack() as stack:
        database = f"sqlite:///{folder / 'kizu.sqlite3'}"
        if services > 1:
            url = stack.enter_context(postgresql(folder))
            database = url.render_as_string(hide_password=False)
        nurseries = []
        for number in range(services):
            place = folder / f"service-{number}"
            (place / "data").mkdir(parents=True)
            (place / "store").symlink_to(folder / "store")
            nursery = Nursery(place, database, scan_seconds=0.02)
            stack.callback(nursery.close)
            nursery.start()
            nurseries.append(nursery)
        yield _Line(folder, database, nurseries)


def _collide(found: Findings, line: _Line, seconds: float) -> None:
    ends = threading.Event()
    hands = [_Hand(found, line, number, ends) for number in range(HANDS)]
    with ThreadPoolExecutor(HANDS) as threads:
        working = [threads.submit(hand.work) for hand in hands]
        begun = time.monotonic()
        while time.monotonic() - begun < seconds and not any(one.done() for one in working):
            ends.wait(NEW_S)
            for recipe in RECIPES:
                write_version(line.store, line.newest + 1, recipe=recipe)
            line.newest += 1
        ends.set()
        for one in working:
            one.result()
    found.count("versions", line.newest)


class _Hand:
    """Somebody who does anything, at one of the services."""

    def __init__(self, found: Findings, line: _Line, number: int, ends: threading.Event) -> None:
        self._found = found
        self._line = line
        self._ends = ends
        self._random = np.random.default_rng((found.seed, number))
        self._operator = f"op {number % 3}"
        self._address = line.addresses[number % len(line.addresses)]

    def work(self) -> None:
        kinds = (
            self._inspect, self._inspect, self._label, self._label, self._keep, self._remove,
            self._claim, self._release, self._ask_training, self._cancel, self._retry,
            self._promote, self._nominate, self._draw_lines, self._revise,
        )  # fmt: skip
        with httpx.Client(base_url=self._address, timeout=60) as self._api:
            while not self._line.parts:
                self._inspect()
            while not self._ends.is_set():
                kinds[self._random.integers(len(kinds))]()

    def _said(self, answer: httpx.Response, *expected: int) -> Any:
        self._found.count("requests")
        if answer.status_code not in expected:
            asked = f"{answer.request.method} {answer.request.url.path}"
            self._found.fail(f"{asked}: {answer.status_code} {answer.text[:200]}")
        self._found.most("answered within, s", round(answer.elapsed.total_seconds(), 1))
        return answer.json() if answer.status_code in (200, 201) else None

    def _post(self, path: str, asked: dict[str, Any], *expected: int) -> Any:
        return self._said(self._api.post(path, json=asked), *expected)

    def _some(self, of: Sequence[str]) -> str:
        return of[self._random.integers(len(of))]

    @property
    def _recipe(self) -> str:
        return f"/v1/recipes/{self._some(RECIPES)}"

    @property
    def _version(self) -> int:
        return max(1, self._line.newest - int(self._random.integers(4)))

    @property
    def _draft(self) -> str:
        return f"/v1/inspections/{self._some(self._line.parts)}/draft"

    def _inspect(self) -> None:
        recipe = self._some(RECIPES)
        key = f"{recipe}-{int(time.monotonic() * 5)}"  # others ask under it, too
        answer = self._api.post(
            f"/v1/inspect?recipe={recipe}", content=image(120),
            headers=PNG | {"idempotency-key": key},
        )  # fmt: skip
        if result := self._said(answer, 200, 409):
            if self._line.results.setdefault(key, result["id"]) != result["id"]:
                self._found.fail(f"the key {key} has two results")
            self._line.parts.append(result["id"])

    def _label(self) -> None:
        verdict = self._some(("ok", "ng"))
        part = self._some(self._line.parts)
        label: dict[str, Any] = {"inspection_id": part, "verdict": verdict}
        if verdict == "ng":
            label["mask"] = base64.b64encode(_MASK).decode()
        said = self._post("/v1/feedback", label | {"operator": self._operator}, 201)
        if said:
            self._line.labels.add(said["id"])

    def _keep(self) -> None:
        whose = {"operator": self._operator}
        self._said(self._api.put(self._draft, params=whose, content=_MASK, headers=PNG), 204)

    def _remove(self) -> None:
        self._said(self._api.delete(self._draft, params={"operator": self._operator}), 204)

    def _claim(self) -> None:
        asked = {"session": f"screen-{self._random.integers(2)}", "count": 3}
        self._post("/v1/review/claims", asked, 200)

    def _release(self) -> None:
        self._post("/v1/review/releases", {"session": f"screen-{self._random.integers(2)}"}, 200)

    def _ask_training(self) -> None:
        self._asked(f"{self._recipe}/trainings", _WHO)

    def _asked(self, path: str, asked: dict[str, Any]) -> None:
        if training := self._post(path, asked, 201, 422):
            self._line.trainings.append(training["id"])

    def _cancel(self) -> None:
        if self._line.trainings:
            training = self._some(self._line.trainings)
            self._post(f"/v1/trainings/{training}/cancel", {"by": "eva"}, 200, 422)

    def _retry(self) -> None:
        if self._line.trainings:
            training = self._some(self._line.trainings)
            self._asked(f"/v1/trainings/{training}/retry", {"by": "eva"})

    def _promote(self) -> None:
        self._post(f"{self._recipe}/promotions", _WHO | {"version": self._version}, 201)

    def _nominate(self) -> None:
        version = self._version if self._random.random() < 0.7 else None
        self._post(f"{self._recipe}/candidates", _WHO | {"version": version}, 201, 422)

    def _draw_lines(self) -> None:
        asked = {"bundle_version": self._version, "review": 90.0}
        ng = float(self._random.integers(100, 150))
        self._post(f"{self._recipe}/thresholds", _WHO | asked | {"ng": ng}, 201, 409)

    def _revise(self) -> None:
        settings = {"number": int(self._random.choice(NUMBERS))}
        self._post(f"{self._recipe}/revisions", _WHO | {"settings": settings}, 201, 422)


def _check(found: Findings, line: _Line) -> None:
    """What is kept, by what must hold in whatever order it came."""
    database = create_engine(line.database)
    with Session(database) as session:
        for recipe in RECIPES:
            promoted = records.promotion_in_force(session, recipe)
            for address in line.addresses:
                _follows(found, address, recipe, promoted.bundle_version if promoted else None)
        audit.verify(session)
        for kept, rows in (
            (line.labels, session.scalars(select(Feedback.id))),
            (set(line.results.values()), session.scalars(select(Inspection.id))),
        ):
            if lost := kept - set(rows):
                found.fail(f"acknowledged and not there: {lost}")
        for table in (Promotion, Candidacy):
            query = select(table.recipe, table.bundle_version).where(table.by == SYSTEM)
            for row, times in Counter(session.execute(query).all()).items():
                if times > 1:
                    found.fail(f"{table.__tablename__} by nobody: {row}, {times} times")
        _one_at_a_time(found, session)
        _numbers(found, session)
        waiting = session.scalars(
            select(ReviewItem.inspection_id)
            .join(Feedback, Feedback.inspection_id == ReviewItem.inspection_id)
            .where(ReviewItem.desk == "operator")
        ).all()
        if waiting:
            found.fail(f"labelled, and before an operator again: {set(waiting)}")
        found.count("parts", len(set(line.results.values())))
        found.count("labels", len(line.labels))
    database.dispose()


def _follows(found: Findings, address: str, recipe: str, version: int | None) -> None:
    asked = f"{address}/v1/recipes/{recipe}"
    try:
        until(lambda: httpx.get(asked).json()["bundle_version"] == version)
    except AssertionError:
        found.fail(f"a service does not follow the promotion of version {version} of {recipe}")


def _one_at_a_time(found: Findings, session: Session) -> None:
    """A training is asked for when the one before has ended."""
    for recipe in RECIPES:
        rows = session.scalars(
            select(Training).where(Training.recipe == recipe).order_by(Training.created_at)
        ).all()
        found.count("trainings", len(rows))
        for earlier, later in itertools.pairwise(rows):
            if earlier.finished_at is None or earlier.finished_at > later.created_at:
                found.fail(f"two trainings of {recipe} at once")


def _numbers(found: Findings, session: Session) -> None:
    """None ever selected two recipes."""
    selects: dict[str, int] = {}
    for row in session.scalars(select(RecipeRevision).order_by(RecipeRevision.id)):
        number = row.settings["number"]
        if any(number == other for name, other in selects.items() if name != row.recipe):
            found.fail(f"the number {number} selects two recipes")
        selects[row.recipe] = number
