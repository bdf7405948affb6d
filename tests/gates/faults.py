"""A device that errs, hangs or answers wrong while cameras go on: once that is noticed nothing
passes any more, and the process ends; what is over by itself costs the parts that it befell."""

import http.client
import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine, select

from service.cli import DEVICE_LOST
from service.store.tables import Inspection
from tests.gates.faulty import FAULTS, POISON
from tests.gates.gate import Findings
from tests.gates.patient import Patient
from tests.grey_parts import PNG, image, write_version

NOTICED_S, NOT_READY_S, ENDED_S = 15.0, 5.0, 10.0
CANARY_S, HANG_S, WAITED_S = 0.3, 1.0, 0.5
CAMERAS = 4
WELL, AFTER, AFTER_S = 20, 40, 1.0  # images before a fault; images and seconds that it must last
# What a sound device says of a part by its grey. 101 and 150 are at the lines: 1 % would matter.
PARTS = {80: "ok", 101: "review", 150: "ng", POISON: "ng"}

HANG, LOST = "a hang", "lost device"
AWAY = "lost device, and the store is away"
# Numbers that could be right: nobody can tell before an image that is known comes to be scored.
CROWDED = "scores off by 1 %, and no room"
SILENT = ("all zero", "scores off by 1 %", "heatmaps all zero", CROWDED)
HARMLESS = ("none", "slow", "stuttering")
ONCE = ("once", "once, on an image that is known")
POISONS = ("poison: an exception", "poison: NaN")
OVER = (*HARMLESS, *ONCE, *POISONS)
SHORT = ("a score too many", "scores off by 1 %", POISONS[1])
_NOTICE = "the device is given up"


@dataclass(frozen=True)
class Shot:
    """One image and what came of it; status 0 is a connection that broke."""

    part: str
    sent: float
    ended: float
    status: int
    verdict: str | None

    @property
    def right(self) -> str:
        """What a sound device says."""
        return PARTS[_grey(self.part)]


@dataclass(frozen=True)
class Look:
    """What /health/live and /health/ready said; 0 where nobody answered."""

    at: float
    live: int
    ready: int


@dataclass
class Case:
    """What cameras and a supervisor saw of one fault."""

    name: str
    shots: list[Shot] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)
    broken: float = 0.0  # when; and when it was noticed, and the process gone
    noticed: float | None = None
    gone: float = 0.0
    status: int = 0
    poisoned: int = 0  # batches that held a poisoned image and others

    def add(self, shot: Shot) -> None:
        with self.news:
            self.shots.append(shot)
            self.news.notify_all()

    def wait(self, images: int, since: float, seconds: float) -> None:
        """Until so many more were answered, and so many seconds have passed since then."""

        def is_enough() -> bool:
            enough = sum(shot.sent > since for shot in self.shots) >= images
            return enough and time.monotonic() > since + seconds

        with self.news:
            if not self.news.wait_for(is_enough, 60):
                raise TimeoutError(f"{self.name}: cameras stand still")


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """Each fault on a device of one lane and on one of two; or a few of them."""
    found = Findings()
    broken = [name for name in FAULTS if name not in HARMLESS]
    names = [*broken, AWAY, *OVER] if full else SHORT
    tried = [(name, lanes) for lanes in ((1, 2) if full else (2,)) for name in names]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_version(folder / "store")
        waiting = Patient()
        for number, (fault, lanes) in enumerate(tried):
            patient = waiting
            if number + 1 < len(tried):
                waiting = Patient()  # it loads meanwhile
            data = folder / f"data-{number}"
            case = _try(patient, folder / "store", data, fault, lanes)
            _check(found, case, f"{fault}, {lanes} at once", _rows(data))
            progress((number + 1) / len(tried))
    return found


def _try(patient: Patient, store: Path, data: Path, name: str, lanes: int) -> Case:
    """From a service that is well to its end."""
    case = Case(name)
    # Where it is not the canary's to tell, it comes too late to.
    canary = CANARY_S if name in (*SILENT, *OVER) else 1000.0
    room = {"max_batch": 1, "max_queue": 2} if name == CROWDED else {"max_batch": 4}
    port = patient.start(
        store, data, canary_seconds=canary, hang_seconds=HANG_S, threads=lanes, **room
    )
    away = store.with_name("away")
    try:
        with _watched(port, case, 3 * CAMERAS if name == CROWDED else CAMERAS):
            case.wait(WELL, 0, 0)
            if name == AWAY:
                store.rename(away)
            patient.say(LOST if name == AWAY else name)
            patient.wait("broken", 5)
            # Not when it came: on a busy machine the first part that it befell may be there before.
            case.broken = patient.all("broken")[0][1]["since"]
            if name in OVER:
                case.wait(AFTER, case.broken, AFTER_S)
            else:
                case.noticed = patient.wait(_NOTICE, NOTICED_S)
                case.gone = patient.wait("gone", 2 * ENDED_S)
    except TimeoutError:
        case.status = patient.end(signal.SIGKILL)
    else:
        case.noticed = next((at for at, _ in patient.all(_NOTICE)), None)
        case.status = patient.end(signal.SIGTERM)
    finally:
        if name == AWAY:
            away.rename(store)
    case.poisoned = len(patient.all("poisoned"))
    return case


@contextmanager
def _watched(port: int, case: Case, cameras: int) -> Iterator[None]:
    stopped = threading.Event()
    watchers = [
        threading.Thread(target=_camera, args=(port, case, number, stopped))
        for number in range(cameras)
    ]
    watchers.append(threading.Thread(target=_supervise, args=(port, case, stopped)))
    for one in watchers:
        one.start()
    try:
        yield
    finally:
        stopped.set()
        for one in watchers:
            one.join()


def _camera(port: int, case: Case, camera: int, stopped: threading.Event) -> None:
    """One image after the other; where nobody listens it tries again soon."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    greys, number = list(PARTS), 0
    while not stopped.is_set():
        number += 1
        grey = greys[(camera + number) % len(greys)]
        part, sent = f"{camera}-{number}-{grey}", time.monotonic()
        status, verdict = 0, None
        try:
            if connection.sock is None:
                connection.connect()
        except OSError:
            stopped.wait(0.05)
            continue
        try:
            connection.request("POST", f"/v1/inspect?part_id={part}", _IMAGES[grey], PNG)
            answer = connection.getresponse()
            verdict = json.loads(answer.read()).get("verdict")
            status = answer.status
        except (OSError, http.client.HTTPException):
            connection.close()
        case.add(Shot(part, sent, time.monotonic(), status, verdict))
    connection.close()


def _supervise(port: int, case: Case, stopped: threading.Event) -> None:
    while not stopped.wait(0.02):
        at = time.monotonic()
        case.looks.append(Look(at, _ask(port, "/health/live"), _ask(port, "/health/ready")))


def _ask(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _rows(data: Path) -> dict[str | None, str]:
    engine = create_engine(f"sqlite:///{data / 'kizu.sqlite3'}")
    try:
        with engine.connect() as connection:
            found = connection.execute(select(Inspection.part_id, Inspection.verdict))
            return {row.part_id: row.verdict for row in found}
    finally:
        engine.dispose()


def _check(found: Findings, case: Case, what: str, rows: dict[str | None, str]) -> None:
    found.count("faults")
    found.count("images", len(case.shots))
    for shot in case.shots:
        wrong = _wrong(case, shot, rows)
        if wrong:
            found.fail(f"{what}: part {shot.part}: {wrong}")
    after = [shot for shot in case.shots if shot.ended > case.broken]
    errors = [shot for shot in after if shot.status not in (0, 200)]
    found.count("answered with an error", len(errors))
    found.count("sent to a service that was closing", sum(shot.status == 0 for shot in after))
    misled = sum(shot.status == 200 and shot.verdict != shot.right for shot in after)
    found.count("wrong before that was noticed", misled)
    if any(look.live not in (0, 200) for look in case.looks):
        found.fail(f"{what}: it did not say that it is alive")
    if any(look.ready != 200 for look in case.looks if look.at < case.broken - 1):
        found.fail(f"{what}: it was not ready before")
    if case.name in OVER:
        _check_over(found, case, what, errors)
    else:
        _check_ended(found, case, what, errors)


def _wrong(case: Case, shot: Shot, rows: dict[str | None, str]) -> str | None:
    """What is wrong with an answer, in words."""
    kept = rows.get(shot.part)
    misled = case.name in SILENT and shot.ended > case.broken
    if kept not in (None, shot.right) and not misled:
        return f"{kept} is kept"
    if shot.status == 0:
        # Whoever waited is told; what was just sent may lie unread on a connection that is closed.
        waited = shot.sent < (case.noticed or case.broken) - WAITED_S
        return "no answer" if waited else None
    if shot.status != 200:
        if shot.ended < case.broken and case.name != CROWDED:
            return f"{shot.status} from a device that was sound"
        if shot.verdict != "error" or shot.status not in (500, 503, 504):
            return f"{shot.status} with the verdict {shot.verdict}"
        return f"an error, and {kept} is kept" if kept else None
    if case.noticed and shot.sent > case.noticed:
        return f"{shot.verdict} after it was noticed"
    if shot.verdict != shot.right and not misled:
        return f"{shot.verdict}"
    return None if kept == shot.verdict else f"{shot.verdict}, and {kept} is kept"


def _check_over(found: Findings, case: Case, what: str, errors: list[Shot]) -> None:
    """It must go on as if nothing had been."""
    if case.noticed or case.status == DEVICE_LOST:
        found.fail(f"{what}: the device was given up")
    if any(look.ready != 200 for look in case.looks):
        found.fail(f"{what}: it was not ready")
    if case.name in POISONS:
        found.count("poisoned images among others", case.poisoned)
        if not case.poisoned:
            found.fail(f"{what}: no poisoned image had neighbours")
        ill = [shot for shot in case.shots if _grey(shot.part) == POISON]
        if any(shot.sent > case.broken and shot.status != 500 for shot in ill):
            found.fail(f"{what}: a poisoned image was no error")
        errors = [shot for shot in errors if _grey(shot.part) != POISON]
    if len(errors) > (case.name in ONCE):
        found.fail(f"{what}: {len(errors)} other images were refused, {errors[0].status}")


def _check_ended(found: Findings, case: Case, what: str, errors: list[Shot]) -> None:
    if not case.noticed or not case.gone:
        found.fail(f"{what}: it was not noticed" if not case.noticed else f"{what}: it did not end")
        return
    first = min([case.noticed, *(shot.ended for shot in errors)])
    if case.name == HANG:
        first = case.broken + HANG_S
    elif case.name in SILENT:
        first = case.broken + CANARY_S
    unready = next((look.at for look in case.looks if look.ready != 200), float("inf"))
    took, ended = max(0.0, unready - first), case.gone - case.noticed
    found.counts[f"{what}: not ready, s"] = round(took, 2)
    found.counts[f"{what}: ended, s"] = round(ended, 2)
    found.most("not ready after, s", round(took, 2))
    found.most("ended after, s", round(ended, 2))
    if took > NOT_READY_S:
        found.fail(f"{what}: it was ready for another {took:.1f} s")
    if any(look.ready == 200 for look in case.looks if look.at > unready):
        found.fail(f"{what}: it was ready again")
    if case.status != DEVICE_LOST:
        found.fail(f"{what}: the process ended with {case.status}")
    if ended > ENDED_S:
        found.fail(f"{what}: it took {ended:.1f} s to end")


def _grey(part: str) -> int:
    return int(part.rpartition("-")[2])


_IMAGES = {grey: image(grey) for grey in PARTS}
