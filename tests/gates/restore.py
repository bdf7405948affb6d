"""A backup drill: all of a plant's recipe is on another computer within ten minutes, while cameras
go on here; what was killed in the middle counts for nothing, and is done again."""

import base64
import getpass
import hashlib
import io
import itertools
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
from PIL import Image
from sqlalchemy import create_engine, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from models.bundle import FILES, MANIFEST, list_recipes, list_versions, open_bundle
from models.image import encode_png
from service.store import audit
from service.store.local_blobs import LocalBlobs
from service.store.tables import AuditEntry, Base
from tests.gates.gate import Findings
from tests.gates.nursery import Nursery
from tests.grey_parts import PNG, write_version
from tests.postgresql import postgresql

LIMIT_S = 600.0
CAMERAS = 4
_LABELLED, _MASKED = 5, 25  # one in so many
# What a backup holds, and by what a row is known on both computers.
_KEYS = {
    "recipe_revisions": "reason", "inspections": "id", "feedback": "id",
    "review_items": "inspection_id", "threshold_revisions": "reason", "promotions": "reason",
    "candidacies": "reason",
}  # fmt: skip
# Counted anew on another computer.
_OWN = {
    "recipe_revisions": {"id"}, "inspections": {"number"}, "feedback": {"number"},
    "threshold_revisions": {"id"}, "promotions": {"id"}, "candidacies": {"id"},
}  # fmt: skip
# What goes on while a backup is written is not of its moment.
_MOVES = "review_items"

Rows = dict[str, dict[str, dict[str, Any]]]


@dataclass
class Place:
    """A computer: its store and data in a folder, its database, and what runs there."""

    folder: Path
    database: str = ""

    def __post_init__(self) -> None:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self.database = self.database or f"sqlite:///{self.folder / 'data' / 'kizu.sqlite3'}"

    @cached_property
    def nursery(self) -> Nursery:
        return Nursery(self.folder, self.database)

    @property
    def options(self) -> list[str | Path]:
        """For a command line."""
        data = ["--data", self.folder / "data", "--database", self.database]
        return ["--store", self.folder / "store", *data]


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """A line that is backed up twice: while it works, and when it stands still."""
    found = Findings(seed=6)
    rng = np.random.default_rng(found.seed)
    number, kills = (20_000, 5) if full else (60, 2)
    with tempfile.TemporaryDirectory() as name, _elsewhere(Path(name), full=full) as urls:
        folder = Path(name)
        line = Place(folder / "line")
        busy, *others = (Place(folder / f"other-{n}", url) for n, url in enumerate(urls))
        nurseries = [place.nursery for place in (line, *others)]
        try:
            _fill(line, number, full=full)
            progress(0.3)
            gate = _Drill(found, rng, line, others[0].nursery, kills)
            quiet = gate.back_up(busy, folder)
            progress(0.6)
            for other in others:
                gate.restore(other, quiet)
        finally:
            for nursery in nurseries:
                nursery.close()
    progress(1.0)
    return found


@contextmanager
def _elsewhere(folder: Path, *, full: bool) -> Iterator[list[str]]:
    """Databases of the other computers: SQLite, again, and in the full form PostgreSQL."""
    if not full:
        yield ["", ""]
        return
    with postgresql(folder) as url:
        yield ["", "", url.render_as_string(hide_password=False)]


def _fill(line: Place, number: int, *, full: bool) -> None:
    """What a plant has: two versions, thresholds and settings that were changed, parts, labels."""
    write_version(line.folder / "store")
    line.nursery.start()
    with httpx.Client(base_url=line.nursery.address, timeout=60) as api:
        for reason, ng in (("a first", 140), ("a second", 120)):
            lines = {"bundle_version": 1, "review": 90, "ng": ng, "by": "eva", "reason": reason}
            api.post("/v1/recipes/cap/thresholds", json=lines).raise_for_status()
            asked = {"settings": {"mm_per_pixel": ng / 10}, "by": "eva", "reason": reason}
            api.post("/v1/recipes/cap/revisions", json=asked).raise_for_status()
    _work(line, lambda n: n < number, full=full)
    write_version(line.folder / "store", 2)
    with httpx.Client(base_url=line.nursery.address, timeout=60) as api:
        asked = {"version": 2, "by": "eva", "reason": "it is better"}
        api.post("/v1/recipes/cap/promotions", json=asked).raise_for_status()


def _work(line: Place, more: Callable[[int], bool], *, full: bool = False, first: int = 0) -> None:
    """Cameras and an operator, each part with an image of its own, as long as there are more."""
    numbers = itertools.count(first)

    def camera() -> None:
        with httpx.Client(base_url=line.nursery.address, timeout=60) as api:
            while more(number := next(numbers)):
                key = {"idempotency-key": str(number)}
                found = api.post(
                    "/v1/inspect", params={"part_id": f"part {number}", "lot": "a"},
                    content=_image(number, full=full), headers=PNG | key,
                )  # fmt: skip
                id = found.raise_for_status().json()["id"]
                if number % _LABELLED == 0:
                    said = {"inspection_id": id, "verdict": "ng", "operator": f"op {number % 7}"}
                    if number % _MASKED == 0:
                        said["mask"] = _mask(number, full=full)
                    api.post("/v1/feedback", json=said).raise_for_status()

    threads = [threading.Thread(target=camera) for _ in range(CAMERAS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _size(*, full: bool) -> tuple[int, int]:
    return (192, 256) if full else (48, 64)


def _image(number: int, *, full: bool) -> bytes:
    noise = np.random.default_rng(number).integers(0, 60, _size(full=full), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise + np.uint8(number % 130)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _mask(number: int, *, full: bool) -> str:
    drawn = np.zeros(_size(full=full), np.uint8)
    drawn[number % 40 : number % 40 + 5, :9] = 255
    return base64.b64encode(encode_png(drawn)).decode()


class _Drill:
    """Commands are carried out by `worker`, on the places that they name."""

    def __init__(
        self, found: Findings, rng: np.random.Generator, line: Place, worker: Nursery, kills: int
    ) -> None:
        self._found = found
        self._rng = rng
        self._line = line
        self._worker = worker
        self._kills = kills
        self._here: Rows = {}  # when the line stood still

    def back_up(self, other: Place, folder: Path) -> Path:
        """While cameras go on; gives a backup of the line once it stands still."""
        found, line = self._found, self._line
        before = _rows(line.database)
        stop = threading.Event()
        camera = threading.Thread(
            target=_work, args=(line, lambda _: not stop.is_set()), kwargs={"first": 10**6}
        )
        camera.start()
        busy, quiet = folder / "busy.kizu", folder / "quiet.kizu"
        try:
            took = self._command("backup", "cap", busy, *line.options)
            found.most("backup of a busy line, s", round(took, 1))
            for _ in range(self._kills):
                ended = self._killed(took, "backup", "cap", quiet, *line.options)
                # It has its name as the last thing of all, so the kill can come after that.
                if quiet.exists() and not _is_whole(quiet):
                    found.fail("a backup that was killed left half of a file")
                if ended and not quiet.exists():
                    found.fail("a backup that ended left no file")
                quiet.unlink(missing_ok=True)
        finally:
            stop.set()
            camera.join()
        took = self._command("restore", busy, *other.options)
        found.most("restore, s", round(took, 1))
        now, there = _rows(line.database), _rows(other.database)
        for table in there:
            if table != _MOVES:
                _contains(found, f"{table} of a busy line", there[table], before[table])
                _contains(found, f"{table} of a busy line", now[table], there[table])
        _look(found, line, other, busy)
        self._command("backup", "cap", quiet, *line.options)
        self._here = _rows(line.database)
        found.counts["backup, MB"] = round(quiet.stat().st_size / 1e6, 1)
        return quiet

    def restore(self, other: Place, file: Path) -> None:
        """Killed again and again, then whole; a service goes on with it."""
        found, line = self._found, self._line
        kind = make_url(other.database).get_backend_name()
        here, took = self._here, found.counts["restore, s"]
        for _ in range(self._kills):
            ended = self._killed(took, "restore", file, *other.options)
            took *= 0.6 if ended else 1.0  # what was restored before is not written again
            there = len(_rows(other.database)["inspections"])
            if there not in (0, len(here["inspections"])):
                found.fail(f"{kind}: a restore that was killed left some of the rows")
            if bool(there) != bool(_restorations(other)):
                found.fail(f"{kind}: rows came without an entry in the log, or it without them")
            versions = _versions(other)
            if (versions and not there) or (ended and versions != [1, 2]):
                found.fail(f"{kind}: a restore that was killed left the versions {versions}")
        took = self._command("restore", file, *other.options)
        found.most(f"restore to {kind}, s", round(took, 1))
        rows = _rows(other.database)
        for table in here:
            _contains(found, f"{kind}, {table}", rows[table], here[table])
            _contains(found, f"{kind}, {table}", here[table], rows[table])
        found.count("rows compared", sum(len(one) for one in here.values()))
        _look(found, line, other, file)
        _serve(found, line, other)

    def _command(self, *command: str | Path) -> float:
        """Seconds that a command of kizu's takes."""
        started = time.monotonic()
        self._worker.start(*command)
        if self._worker.ended() != 0:
            self._found.fail(f"kizu {command[0]} ends with an error")
        took = time.monotonic() - started
        if took > LIMIT_S:
            self._found.fail(f"kizu {command[0]} took {took:.0f} s")
        return took

    def _killed(self, took: float, *command: str | Path) -> bool:
        """Killed at some moment of the time that it takes; whether it had come to its end."""
        self._worker.start(*command)
        time.sleep(self._rng.uniform(0.05, 1.0) * took)  # a moment, nothing tells of it
        self._worker.kill()
        ended = self._worker.status == 0
        self._found.count("came to their end" if ended else f"{command[0]}s killed")
        return ended


def _rows(database: str) -> Rows:
    """What a backup holds, without what each computer counts by itself."""
    engine = create_engine(database)
    there = inspect(engine).get_table_names()
    found: Rows = {}
    revisions: dict[int, str] = {}  # by their numbers here
    with engine.connect() as connection:
        for name, key in _KEYS.items():
            table = Base.metadata.tables[name]
            rows = connection.execute(select(table)).mappings() if name in there else []
            left = _OWN.get(name, set())
            found[name] = {
                row[key]: {column: row[column] for column in row if column not in left}
                for row in rows
            }
            if name == "recipe_revisions" and name in there:
                query = select(table.c.id, table.c.reason)
                revisions = {row.id: row.reason for row in connection.execute(query)}
    engine.dispose()
    for row in found["inspections"].values():
        row["recipe_revision"] = revisions[row["recipe_revision"]]
    return found


def _contains(found: Findings, what: str, whole: Any, part: Any) -> None:
    for key, row in part.items():
        if whole.get(key) != row:
            found.fail(f"{what}: {key} is {whole.get(key)}, not {row}")
            return


def _restorations(place: Place) -> list[AuditEntry]:
    engine = create_engine(place.database)
    if not inspect(engine).has_table("audit_entries"):
        return []
    with Session(engine) as session:
        audit.verify(session)
        entries = session.scalars(
            select(AuditEntry).where(AuditEntry.action == "backup: restore")
        ).all()
        session.expunge_all()
    engine.dispose()
    return list(entries)


def _versions(place: Place) -> list[int]:
    """Those that a service would find; each is whole."""
    store = place.folder / "store"
    if not store.exists() or "cap" not in list_recipes(store):
        return []
    versions = list_versions(store, "cap")
    for version in versions:
        open_bundle(store / "cap" / str(version))
    return versions


def _look(found: Findings, line: Place, other: Place, file: Path) -> None:
    """At what is no row: files, bundles, and what the log says of it."""
    here, there = (LocalBlobs(place.folder / "data" / "blobs") for place in (line, other))
    rows = _rows(other.database)
    named = {
        row[name]
        for table, names in {
            "inspections": ("image_sha256", "heatmap_sha256"), "feedback": ("mask_sha256",)
        }.items()
        for row in rows[table].values() for name in names if row[name]
    }  # fmt: skip
    for sha256 in named:
        data = there.get(sha256)
        if data is None or hashlib.sha256(data).hexdigest() != sha256 or data != here.get(sha256):
            found.fail(f"the file {sha256} is not what it was")
    found.count("files compared", len(named))
    for version in _versions(other):
        for name in (*FILES, MANIFEST):
            path = Path("store") / "cap" / str(version) / name
            if (line.folder / path).read_bytes() != (other.folder / path).read_bytes():
                found.fail(f"{path} is not what it was")
    entries = _restorations(other)
    if not entries:
        found.fail("the log says nothing of a restore")
        return
    last = entries[-1]
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if (last.name, last.kind, last.subject) != (getpass.getuser(), "command", "cap"):
        found.fail(f"the log says {last.name} ({last.kind}) restored {last.subject}")
    if digest not in last.details:
        found.fail(f"the log does not say which file was restored: {last.details}")
    left = [one.name for one in (other.folder / "store").iterdir() if one.name != "cap"]
    if left:
        found.fail(f"restores left {left}")


def _serve(found: Findings, line: Place, other: Place) -> None:
    """On both computers a new image is judged alike, by the same version and thresholds."""
    judged = []
    other.nursery.start()
    for place in (line, other):
        with httpx.Client(base_url=place.nursery.address, timeout=60) as api:
            recipe = api.get("/v1/recipes/cap").raise_for_status().json()
            part = api.post("/v1/inspect", content=_image(7, full=False), headers=PNG)
            part = part.raise_for_status().json()
            revised = len(api.get("/v1/recipes/cap/revisions").json())
            judged.append(
                [recipe["thresholds"], recipe["versions"], revised]
                + [part[name] for name in ("verdict", "score", "recipe_id")]
            )
    other.nursery.kill()
    if judged[0] != judged[1]:
        found.fail(f"an image is judged otherwise: {judged[1]}, not {judged[0]}")
    found.count("served")


def _is_whole(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except zipfile.BadZipFile:
        return False
