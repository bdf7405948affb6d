"""The clock on the wall jumps by an hour and by a day, both ways, while all works: nothing hangs,
is lost, removed, locked or let in for it.

    python -m tests.gates.clocks STORE DATA DATABASE SETTINGS

is the service, with what takes minutes and hours in it made faster; libfaketime shows it another
clock on the wall, and leaves the one that only goes on alone.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from service import retention
from service.engine import FakeEngine
from service.gate import CSRF_HEADER
from service.store import accounts, audit
from service.store.blobs import Blobs
from service.store.database import open_database
from service.store.local_blobs import LocalBlobs
from service.store.tables import Inspection
from tests.cable import Cable, cable
from tests.gates import forks
from tests.gates.gate import CannotRun, Findings
from tests.gates.nursery import Nursery
from tests.grey_parts import PNG, image, write_version
from tests.postgresql import postgresql

FORWARD, BACK = ["+1h", "+1d"], ["-1h", "-1d"]
PASSWORD = "three odd words"
ANSWERED_S = 10.0
RUN_S = 0.02  # of the engine: images wait for each other
BEAT_S = 0.1
FEW = 6  # parts, in the short form
SESSION_H = 12
SETTINGS = {
    "access": "closed", "keep_ok_days": 0.5, "session_hours": SESSION_H, "canary_seconds": 0.3,
    "hang_seconds": 3,
}  # fmt: skip


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """Each jump, and back; with PostgreSQL, too, in the full form, and away while it jumps."""
    found = Findings(seed=11)
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        raise CannotRun("There is no libfaketime: apt-get install faketime.")
    rng = np.random.default_rng(found.seed)
    kinds: list[Any] = [*[_sqlite] * 3, _postgresql] if full else [_sqlite]
    for number, opened in enumerate(kinds):
        with tempfile.TemporaryDirectory() as name, opened(Path(name)) as (far, near, plug):
            folder = Path(name)
            write_version(folder / "store")
            clock = _Clock(folder / "clock")
            database = open_database(near)
            nursery = Nursery(
                folder, far, variables=clock.variables(str(library)),
                module="tests.gates.clocks", **SETTINGS,
            )  # fmt: skip
            try:
                plant = Plant(
                    found, nursery, clock, database, LocalBlobs(folder / "data" / "blobs")
                )
                plant.open()
                # Once it was set back and right again, removing for age waits for a day.
                jumps = [*rng.permutation(FORWARD), *rng.permutation(BACK)]
                for jump in jumps if full else FORWARD[1:]:
                    plant.jump(str(jump), plug, parts=60 if full else FEW)
                plant.wrong_year()
                plant.restart()
                plant.end()
            except httpx.HTTPError as error:
                found.fail(f"a request that must be answered is not: {error}")
            finally:
                nursery.close()
                database.dispose()
        progress((number + 1) / len(kinds))
    return found


@contextmanager
def _sqlite(folder: Path) -> Iterator[tuple[str | None, str, None]]:
    (folder / "data").mkdir()
    yield None, f"sqlite:///{folder / 'data' / 'kizu.sqlite3'}", None


@contextmanager
def _postgresql(folder: Path) -> Iterator[tuple[str, str, Cable]]:
    """As the service reaches it, as the gate does, and the cable to it."""
    with (
        postgresql(folder) as url,
        cable(Path(str(url.query["host"])) / ".s.PGSQL.5432") as plug,
    ):
        far = url.set(host="127.0.0.1", port=plug.port, query={})
        shown = (one.render_as_string(hide_password=False) for one in (far, url))
        yield next(shown), next(shown), plug


class _Clock:
    """What the service sees on the wall."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.shift = timedelta(0)
        self.set("+0")

    def variables(self, library: str) -> dict[str, str]:
        """For a process that sees it."""
        return {
            "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1",
        }  # fmt: skip

    def set(self, offset: str) -> None:
        """From now on, by so much before or after the true time."""
        unit = {"h": 1, "d": 24, "0": 0}[offset[-1]]
        self.shift = timedelta(hours=unit * int(offset[:-1] or 0)) if unit else timedelta(0)
        new = self._file.with_name("clock.new")
        new.write_text(f"{offset}\n")
        new.replace(self._file)

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + self.shift


@dataclass
class Plant:
    """Cameras, operators and watchers of one service."""

    found: Findings
    nursery: Nursery
    clock: _Clock
    database: Engine
    blobs: Blobs
    ids: list[str] = field(default_factory=list)  # of all parts, as they were answered
    told: list[str] = field(default_factory=list)  # of those that a watcher was told of
    aged: set[str] = field(default_factory=set)  # what is old by what its row says
    training: str = ""

    def open(self) -> None:
        """Accounts, rules, a training that waits, and what retention should and should not find."""
        with Session(self.database) as session, session.begin():
            accounts.add_user(session, "eva", "admin", PASSWORD)
            camera = accounts.add_key(session, "camera", "engineer")
            slow = accounts.add_key(session, "slow", "camera", per_second=2)
        self.nursery.start()
        self.api = self._client(camera)
        self.slow = self._client(slow)
        self.eva = self._log_in()
        lines = {"bundle_version": 1, "review": 100, "ng": 140, "by": "eva", "reason": "at first"}
        self.api.post("/v1/recipes/cap/thresholds", json=lines).raise_for_status()
        asked = {"settings": {"product": "box", "sampled": 0.0}, "by": "eva", "reason": "a view"}
        self.api.post("/v1/recipes/cap/revisions", json=asked).raise_for_status()
        for verdict in ("ng", "ng", "ok"):
            self._label(self._inspect(200), verdict)
        asked = {"by": "eva", "reason": "dents"}
        said = self.api.post("/v1/recipes/cap/trainings", json=asked).raise_for_status()
        self.training = said.json()["id"]
        self.orphan = self.blobs.put(b"of a request that is under way in another process")
        self.told = self.ids[:1]

    def jump(self, to: str, plug: Cable | None, *, parts: int) -> None:
        """There and back, with work before, at the moment itself, and after."""
        self._moment(to, plug, parts)
        self._look(to)
        self._moment("+0", None, parts)
        if parts > FEW:
            self._look(f"back from {to}")
        if not to.startswith("-"):
            self._removes_what_is_old()
        self.found.count("jumps", 2)

    def _moment(self, to: str, plug: Cable | None, parts: int) -> None:
        """It jumps while images wait for the device, an operator holds a part, a key has asked for
        all that it may, and results wait for the database."""
        held = self._contested()
        claimed = self._claim("screen-a", 1)
        if [one["inspection"]["id"] for one in claimed] != [held] or held in self._claimed(
            "screen-b"
        ):
            self.found.fail(f"{to}: a part that is held is given to another one")
        part = f"{to} {len(self.ids)}"
        self._inspect(50 if len(self.ids) % 2 else 200, part_id=part)
        self._exhaust()
        if plug:
            plug.pull()
        with ThreadPoolExecutor(8) as cameras:
            sent = [cameras.submit(self._inspect, 60 + number % 30) for number in range(parts)]
            sent[0].result()
            self.clock.set(to)
            for one in sent:
                one.result()
        newest = self._inspect(200 if len(self.ids) % 2 else 50, part_id=part)
        if plug:
            plug.plug()
            self._wait(lambda: "kizu_spooled_results 0.0" in self.api.get("/metrics").text, to)
        views = self.api.get(f"/v1/parts/{part}", params={"product": "box"}).json()["views"]
        if views[0]["inspection"]["id"] != newest:
            self.found.fail(f"{to}: a part's earlier inspection counts, not its last one")
        if held not in self._claimed("screen-b"):
            self.found.fail(f"{to}: nobody is given what somebody held before the clock jumped")
        self._label(held, "ok")
        self._allowed_again(to)

    def _look(self, when: str) -> None:
        """At all that could hang on the clock."""
        fail = self.found.fail
        if self.api.get("/health/ready").status_code != 200:
            fail(f"{when}: the service is not ready")
        self._log_in().close()  # which looks for sessions that have ended
        known = "eva" if self.clock.shift < timedelta(hours=SESSION_H) else None
        self._wait(
            lambda: self.eva.get("/v1/session").json()["name"] == known,
            f"{when}: who is logged in is {known}",
        )
        self._page(when, 3)
        self._follow(when)
        self._count_shift(when)
        trail = self.api.get(f"/v1/inspections/{self.ids[-1]}/trail").json()
        if (trail["thresholds_revision"] or {}).get("reason") != "at first":
            fail(f"{when}: the trail does not say who set the thresholds")
        if not trail["promotion"]:
            fail(f"{when}: the trail does not say who promoted the bundle")
        trainings = self.api.get("/v1/trainings").json()
        if [(one["id"], one["state"]) for one in trainings] != [(self.training, "queued")]:
            fail(f"{when}: a training that waits is {trainings}")
        estimate = self.api.post("/v1/recipes/cap/estimate", json={}).json()
        if not 0 < estimate["seconds"] < 3600 or estimate["worker"]:
            fail(f"{when}: a training would take {estimate['seconds']} s")
        wrong = {"name": "nobody", "password": PASSWORD + str(len(self.ids))}
        answer = self.slow.post("/v1/session", json=wrong)
        if answer.status_code == 429 and not 1 <= int(answer.headers["retry-after"]) <= 300:
            fail(f"{when}: who tries passwords waits {answer.headers['retry-after']} s")
        time.sleep(2.5 * BEAT_S)  # that retention and its sweep come by
        self._kept(when)

    def _page(self, when: str, limit: int) -> None:
        """All is found once, in order, while more comes."""
        seen: list[str] = []
        times: list[str] = []
        query: dict[str, Any] = {"limit": limit}
        wanted = set(self.ids)
        while True:
            page = self.api.get("/v1/inspections", params=query).json()
            seen += [row["id"] for row in page["items"]]
            times += [row["creation_time"] for row in page["items"]]
            if page["next"] is None:
                break
            query["before"] = page["next"]
            if len(seen) == limit:
                self._inspect(70)  # somewhere among those that are not read yet
        if len(seen) != len(set(seen)) or not wanted <= set(seen):
            missing = len(wanted - set(seen))
            self.found.fail(f"{when}: of all pages, {missing} are missing, {len(seen)} are there")
        if sorted(times, key=datetime.fromisoformat, reverse=True) != times:
            self.found.fail(f"{when}: pages are not in order")
        self.found.count("paged", len(seen))

    def _count_shift(self, when: str) -> None:
        shift = self.api.get("/v1/shift").json()
        since, until = (datetime.fromisoformat(shift[name]) for name in ("since", "until"))
        with Session(self.database) as session:
            times = session.scalars(select(Inspection.created_at)).all()
        wanted = sum(since <= at < until for at in times)
        counted = sum(shift[verdict] for verdict in ("ok", "review", "ng"))
        if not since <= self.clock.now < until or counted != wanted:
            self.found.fail(f"{when}: of the shift since {since}, {counted} are counted")

    def _kept(self, when: str) -> None:
        """Nothing of today was removed, and no file that another process has just written."""
        if self.blobs.get(self.orphan) is None:
            self.found.fail(f"{when}: a file is swept that is a minute old")
        with Session(self.database) as session:
            gone = session.scalars(
                select(Inspection.id).where(
                    Inspection.files_removed_at.is_not(None), Inspection.id.in_(self.ids)
                )
            ).all()
        if gone:
            self.found.fail(f"{when}: {len(gone)} images are removed that are minutes old")

    def _removes_what_is_old(self) -> None:
        """Once the clock is right again."""
        id = self._inspect(61)
        self.ids.remove(id)
        self.aged.add(id)
        self._reach([id])
        with Session(self.database) as session, session.begin():
            old = datetime.now(UTC) - timedelta(days=2)
            session.execute(update(Inspection).where(Inspection.id == id).values(created_at=old))

        def removed() -> bool:
            with Session(self.database) as session:
                row = session.get_one(Inspection, id)
                return row.files_removed_at is not None

        self._wait(removed, "what is old is removed")

    def _contested(self) -> str:
        """A part that waits for review before all others."""
        return self._inspect(120)

    def _claim(self, screen: str, count: int) -> list[dict[str, Any]]:
        asked = {"session": screen, "count": count}
        items: list[dict[str, Any]] = (
            self.api.post("/v1/review/claims", json=asked).raise_for_status().json()["items"]
        )
        return items

    def _claimed(self, screen: str) -> list[str]:
        """What a screen is given, and gives back."""
        items = [one["inspection"]["id"] for one in self._claim(screen, 20)]
        self.api.post("/v1/review/releases", json={"session": screen}).raise_for_status()
        return items

    def _exhaust(self) -> None:
        """All that a key may ask for at once."""
        for _ in range(20):
            answer = self.slow.get(f"/v1/inspections/{self.ids[0]}")
            if answer.status_code == 429:
                if not 1 <= int(answer.headers["retry-after"]) <= 2:
                    self.found.fail(f"a key waits {answer.headers['retry-after']} s")
                return
        self.found.fail("a key asks as often as it likes")

    def _allowed_again(self, when: str) -> None:
        self._wait(
            lambda: self.slow.get(f"/v1/inspections/{self.ids[0]}").status_code == 200,
            f"{when}: the key",
        )

    def _watch(self, after: str) -> Generator[str]:
        """Ids of inspections as they are told since that one."""
        headers = {"last-event-id": after}
        with self.api.stream("GET", "/v1/events", headers=headers, timeout=5) as answer:
            kind = id = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "id":
                    id = value
                elif not line and kind == "reset":
                    self.found.fail("a watcher is told that some are missing")
                elif not line and kind == "inspection":
                    yield id
                    kind = ""

    def _follow(self, when: str) -> None:
        """Go on where the connection was lost, to the newest; each came once."""
        self._reach(self.ids)
        told = [id for id in self.told if id not in self.aged]
        if sorted(told) != sorted(self.ids):
            self.found.fail(f"{when}: of {len(self.ids)} parts, a watcher was told {len(told)}")

    def _reach(self, wanted: list[str]) -> None:
        missing = set(wanted) - set(self.told)
        if not missing:
            return
        with closing(self._watch(self.told[-1])) as stream:
            try:
                while missing:
                    self.told.append(next(stream))
                    missing.discard(self.told[-1])
            except (httpx.ReadTimeout, StopIteration):
                self.found.fail(f"a watcher was never told of {len(missing)} parts")
        self.found.count("connections resumed")

    def _inspect(self, grey: int, **query: str) -> str:
        spot = (len(self.ids) % 60, 3, len(self.ids) % 60 + 2, 5)
        started = time.monotonic()
        answer = self.api.post(
            "/v1/inspect", params=query, content=image(grey, spot=spot), headers=PNG
        )
        took = time.monotonic() - started
        self.found.most("slowest, s", round(took, 2))
        if answer.status_code != 200 or took > ANSWERED_S:
            self.found.fail(f"an image is answered with {answer.status_code} after {took:.1f} s")
        id: str = answer.raise_for_status().json()["id"]
        self.ids.append(id)
        self.found.count("images")
        return id

    def _label(self, id: str, verdict: str) -> None:
        said = {"inspection_id": id, "verdict": verdict, "operator": "bo"}
        self.api.post("/v1/feedback", json=said).raise_for_status()

    def _client(self, key: str) -> httpx.Client:
        client = self._stranger()
        client.headers["authorization"] = f"Bearer {key}"
        return client

    def _stranger(self) -> httpx.Client:
        """Each request by a connection of its own: one that was idle is closed at any moment."""
        alone = httpx.Limits(max_keepalive_connections=0)
        return httpx.Client(base_url=self.nursery.address, timeout=30, limits=alone)

    def _log_in(self) -> httpx.Client:
        client = self._stranger()
        said = client.post("/v1/session", json={"name": "eva", "password": PASSWORD})
        client.headers[CSRF_HEADER] = said.raise_for_status().json()["csrf"]
        return client

    def wrong_year(self) -> None:
        """Who logs in while the clock is wrong by years is not logged in for years."""
        self.clock.set("+3650d")
        late = self._log_in()
        self.clock.set("+0")
        # A session that was found is believed for two seconds.
        self._wait(lambda: late.get("/v1/trainings").status_code == 401, "a session ends")
        self.eva = self._log_in()

    def restart(self) -> None:
        """Set back, and started again: who watched goes on where that was."""
        self._inspect(55)
        self._reach(self.ids)
        self.clock.set("-1d")
        for grey in (51, 52, 53, 54):
            self._inspect(grey)
        self._reach(self.ids[-3:-2])
        self.nursery.kill()
        self.nursery.start()
        self._look("set back and started again")
        self.clock.set("+0")

    def end(self) -> None:
        """The log is whole, and what was asked for can be taken back."""
        said = self.eva.post(f"/v1/trainings/{self.training}/cancel", json={"by": "eva"})
        if said.status_code != 200 or said.json()["state"] != "cancelled":
            self.found.fail(f"a training is not cancelled: {said.text}")
        with Session(self.database) as session:
            entries, _ = audit.verify(session)
            rows = len(session.scalars(select(Inspection.id)).all())
        self.found.count("audit entries", entries)
        self.found.count("rows", rows)
        for client in (self.api, self.slow, self.eva):
            client.close()

    def _wait(self, true: Callable[[], bool], what: str) -> None:
        """For what is to come within seconds; nothing tells when."""
        until = time.monotonic() + 10
        while not true():
            if time.monotonic() > until:
                self.found.fail(f"{what}: it does not come about within 10 s")
                return
            time.sleep(0.02)


def _serve() -> None:
    retention.EVERY_S = BEAT_S
    retention.SWEEP_EVERY_S = BEAT_S
    pause = threading.Event()  # libfaketime does not take to time.sleep
    forks.main(lambda bundle: FakeEngine(before=lambda images: pause.wait(RUN_S) and None))


if __name__ == "__main__":
    _serve()
