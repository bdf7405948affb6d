"""Upgrades that are killed at every statement and at any moment: the rows are there, once, and the
schema is the old one or the new one."""

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, Engine, MetaData, Table, create_engine, event, inspect, select, text
from sqlalchemy import types as sql
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from models.bundle import open_bundle
from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from service.store import audit
from service.store.database import MIGRATIONS, migrate, open_database
from tests.gates.gate import Findings
from tests.grey_parts import PNG, image, write_version
from tests.postgresql import postgresql

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.gates.upgrades"])
_ENDED_S = 60.0

# What the service reads, and would not take anything for.
_FIXED: dict[str, Any] = {
    "recipe": "cap", "bundle_version": 1, "newest_version": 1, "champion_version": 1,
    "verdict": "ok", "champion_verdict": "ok", "image_type": "image/png", "pixels": {},
    "regions": [], "boxes": [], "processing_times": {}, "settings": {}, "labels": {},
    "width": 64, "height": 48, "review_threshold": 100.0, "ng_threshold": 150.0, "review": 100.0,
    "ng": 150.0, "desk": "operator", "reason": "uncertain", "state": "failed", "role": "operator",
    "recipe_revision": None, "withdraws": None, "files_removed_at": None, "retry_of": None,
}  # fmt: skip
_COUNTS = {"audit_entries"}  # by itself; its rows are written by what writes it


class Kind(Protocol):
    """A kind of database: at an old revision, as often as it is wanted."""

    def fresh(self) -> str:
        """The URL of an empty one."""
        ...

    def copy(self, url: str) -> str:
        """The URL of another one that holds the same."""
        ...


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """From each revision: struck at statements, killed at random, and by two at once."""
    found = Findings(seed=10)
    rng = np.random.default_rng(found.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = open_bundle(write_version(folder / "store"))
        kinds: list[Any] = [_sqlite, _postgresql] if full else [_sqlite]
        # In short, the longest way and the shortest.
        revisions = _revisions() if full else _revisions()[:: len(_revisions()) - 1]
        steps = len(kinds) * len(revisions)
        for place, opened in enumerate(kinds):
            with opened(folder) as kind:
                new = kind.fresh()
                open_database(new).dispose()
                wanted = _schema(new)
                for number, revision in enumerate(revisions):
                    gate = _Upgrade(found, rng, kind, wanted, folder, revision)
                    gate.prepare(bundle.digest, 50 if full else 3)
                    gate.strike(every=1 if full else 12)
                    gate.kill(20 if full else 1)
                    gate.two_at_once()
                    gate.serve()
                    progress((place * len(revisions) + number + 1) / steps)
    return found


def _revisions() -> list[str]:
    """Those before the newest, the oldest first."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    walked = ScriptDirectory.from_config(config).walk_revisions()
    return [script.revision for script in walked][:0:-1]


class _Upgrade:
    """From one revision, on one kind of database."""

    def __init__(
        self,
        found: Findings,
        rng: np.random.Generator,
        kind: Kind,
        wanted: Any,
        folder: Path,
        revision: str,
    ) -> None:
        self._found = found
        self._rng = rng
        self._kind = kind
        self._wanted = wanted
        self._folder = folder
        self._revision = revision
        self._old = ""
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._schema: Any = None

    def prepare(self, digest: str, rows: int) -> None:
        """A database as that version of Kizu left it."""
        self._old = self._kind.fresh()
        engine = create_engine(self._old)
        migrate(engine, self._revision)
        _fill(engine, self._rng, digest, rows)
        engine.dispose()
        self._rows, self._schema = _rows(self._old), _schema(self._old)

    def strike(self, every: int) -> None:
        """Killed before each statement in turn, and after the last one."""
        url = self._kind.copy(self._old)
        struck = 1
        while self._ended(_upgrade, url, struck) == -signal.SIGKILL:
            self._found.count("struck at a statement")
            if self._look_half(url, f"struck at statement {struck}"):
                break
            struck += every
        self._look(url, "struck at each statement")

    def kill(self, times: int) -> None:
        """Killed at random moments of the time that it takes."""
        url = self._kind.copy(self._old)
        started = time.monotonic()
        if self._ended(_upgrade, url, None) != 0:
            self._found.fail(f"{self._name}: an upgrade that nobody disturbs ends with an error")
        took = time.monotonic() - started
        url = self._kind.copy(self._old)
        while times:
            process = _FORKS.Process(target=_upgrade, args=(url, None))
            process.start()
            process.join(self._rng.uniform(0.1, 1.0) * took)
            if process.is_alive():
                process.kill()
            process.join(_ENDED_S)
            if process.exitcode == -signal.SIGKILL:
                self._found.count("killed at random")
                times -= 1
            if self._look_half(url, "killed at random"):
                url = self._kind.copy(self._old)
        self._ended(_upgrade, url, None)
        self._look(url, "killed at random")

    def two_at_once(self) -> None:
        """A service and a worker that start together."""
        url = self._kind.copy(self._old)
        both = [_FORKS.Process(target=_upgrade, args=(url, None)) for _ in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(_ENDED_S)
        if [process.exitcode for process in both] != [0, 0]:
            self._found.fail(f"{self._name}: of two at once, one does not come up")
        self._found.count("two at once")
        self._look(url, "two at once")

    def serve(self) -> None:
        """The service on it shows what was there, inspects, and goes on with the audit log."""
        url = self._kind.copy(self._old)
        data = Path(tempfile.mkdtemp(dir=self._folder))
        settings = Settings(store=self._folder / "store", data=data, database=url, access="open")
        app = create_app(settings, open_engine=lambda bundle: FakeEngine())
        with capture_logs(), TestClient(app) as client:
            for row in self._rows["inspections"]:
                answer = client.get(f"/v1/inspections/{row['id']}/trail")
                if answer.status_code != 200 or answer.json()["inspection"]["id"] != row["id"]:
                    self._found.fail(f"{self._name}: an inspection is not shown: {answer.text}")
            part = client.post("/v1/inspect?part_id=new", content=image(200), headers=PNG)
            if part.status_code != 200 or part.json()["verdict"] != "ng":
                self._found.fail(f"{self._name}: nothing is inspected: {part.text}")
                return
            label = {"inspection_id": part.json()["id"], "verdict": "ng", "operator": "eva"}
            if client.post("/v1/feedback", json=label).status_code != 201:
                self._found.fail(f"{self._name}: nothing is labelled")
            newest = client.get("/v1/inspections", params={"part_id": "new"}).json()["items"]
            if [row["id"] for row in newest] != [part.json()["id"]]:
                self._found.fail(f"{self._name}: what was inspected is not found")
        self._found.count("served")
        engine = create_engine(url)
        with Session(engine) as session:
            audit.verify(session)
        engine.dispose()

    @property
    def _name(self) -> str:
        return f"{make_url(self._old).get_backend_name()} from {self._revision}"

    def _ended(self, target: Callable[..., None], *arguments: Any) -> int | None:
        process = _FORKS.Process(target=target, args=arguments)
        process.start()
        process.join(_ENDED_S)
        if process.is_alive():
            process.kill()
            process.join()
            self._found.fail(f"{self._name}: it hangs")
        return process.exitcode

    def _look_half(self, url: str, what: str) -> bool:
        """Whether it is the new schema already; anything between is wrong."""
        schema = _schema(url)
        if schema not in (self._schema, self._wanted):
            self._found.fail(f"{self._name}, {what}: half of it is there")
        return bool(schema == self._wanted)

    def _look(self, url: str, what: str) -> None:
        name = f"{self._name}, {what}"
        if _schema(url) != self._wanted:
            self._found.fail(f"{name}: the schema is not that of a new database")
        after = _rows(url)
        for table, rows in self._rows.items():
            if table == "alembic_version":
                continue
            kept = [{column: row[column] for column in rows[0]} for row in after[table]]
            self._found.count("rows", len(rows))
            if kept != rows:
                self._found.fail(f"{name}: the rows of {table} are not what they were")
        engine = create_engine(url)
        if engine.dialect.name == "sqlite":
            with engine.connect() as connection:
                for check, good in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
                    said = connection.execute(text(f"PRAGMA {check}")).all()
                    if said != good:
                        self._found.fail(f"{name}: {check} says {said}")
        engine.dispose()


def _upgrade(url: str, struck: int | None) -> None:
    """What a service does first. It kills itself before statement `struck`; commits count, too."""
    passed = 0

    def strike(*_: Any) -> None:
        nonlocal passed
        passed += 1
        if passed == struck:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", strike)
    event.listen(Engine, "commit", strike)
    open_database(url).dispose()


def _fill(engine: Engine, rng: np.random.Generator, digest: str, count: int) -> None:
    """So many rows in each table, whatever columns it has at this revision."""
    tables = MetaData()
    tables.reflect(engine)
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            if table.name in _COUNTS | {"alembic_version"}:
                continue
            for number in range(count):
                connection.execute(table.insert().values(**_row(table, number, rng, digest)))
    if "audit_entries" in tables.tables:
        with Session(engine) as session, session.begin():
            for number in range(count):
                audit.note(session, "feedback: add", f"an old one, {number}", {"verdict": "ok"})


def _row(table: Table, number: int, rng: np.random.Generator, digest: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column in table.columns:
        if column.primary_key and isinstance(column.type, sql.Integer):
            continue  # the database counts
        fixed = _FIXED | {"bundle_digest": digest}
        if column.foreign_keys:
            [key] = column.foreign_keys
            row[column.name] = f"{_key(key.column.table.name, number)}"
        elif column.name in fixed:
            row[column.name] = fixed[column.name]
        elif column.name == "id":
            row[column.name] = _key(table.name, number)
        else:
            row[column.name] = _value(column.name, column.type, number, rng)
    if table.name == "users":
        row["name"] = _key("users", number)
    # SQLite gives JSON back as JSON; what is reflected elsewhere may be text.
    return {
        name: json.dumps(value)
        if isinstance(value, dict | list) and not isinstance(table.c[name].type, JSON)
        else value
        for name, value in row.items()
    }


def _key(table: str, number: int) -> str:
    """As ids are; of users, their names."""
    return f"user {number}" if table == "users" else f"{sum(table.encode()):08x}{number:024x}"


def _value(name: str, type: sql.TypeEngine[Any], number: int, rng: np.random.Generator) -> Any:
    if isinstance(type, sql.Boolean):
        return bool(number % 2)
    if isinstance(type, sql.Integer):
        return int(rng.integers(1_000_000))
    if isinstance(type, sql.Float):
        return float(rng.normal())
    if isinstance(type, sql.DateTime):
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(rng.integers(10**12)))
    if isinstance(type, sql.LargeBinary):
        return rng.bytes(50)
    if isinstance(type, JSON):
        return {"number": number}
    return f"{name} {number} ä\u2009{rng.integers(1000)}"


def _rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """All there is."""
    engine = create_engine(url)
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = {
            table.name: [
                dict(row)
                for row in connection.execute(
                    select(table).order_by(*table.primary_key.columns or table.columns)
                ).mappings()
            ]
            for table in tables.sorted_tables
        }
    engine.dispose()
    return found


def _schema(url: str) -> Any:
    """All that a migration makes."""
    engine = create_engine(url)
    seen = inspect(engine)
    found: Any = {
        table: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column["default"])
                for column in seen.get_columns(table)
            ],
            "key": seen.get_pk_constraint(table),
            "foreign": seen.get_foreign_keys(table),
            "unique": sorted(seen.get_unique_constraints(table), key=str),
            "indexes": sorted(seen.get_indexes(table), key=str),
        }
        for table in seen.get_table_names()
    }
    triggers = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
        if engine.dialect.name == "sqlite"
        else "SELECT tgname, prosrc FROM pg_trigger JOIN pg_proc ON tgfoid = pg_proc.oid "
        "WHERE NOT tgisinternal ORDER BY tgname"
    )
    with engine.connect() as connection:
        found["triggers"] = [tuple(row) for row in connection.execute(text(triggers))]
        found["version"] = connection.scalar(text("SELECT version_num FROM alembic_version"))
    engine.dispose()
    return found


class _Sqlite:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0

    def fresh(self) -> str:
        self._made += 1
        file = self._folder / f"{self._made}.sqlite3"
        engine = create_engine(f"sqlite:///{file}")
        with engine.connect() as connection:  # as every version of Kizu has made it
            connection.execute(text("PRAGMA journal_mode=WAL"))
        engine.dispose()
        return f"sqlite:///{file}"

    def copy(self, url: str) -> str:
        source = Path(str(make_url(url).database))
        self._made += 1
        target = self._folder / f"{self._made}.sqlite3"
        for name in (source, source.with_name(f"{source.name}-wal")):
            if name.exists():
                shutil.copy(name, name.with_name(name.name.replace(source.name, target.name)))
        return f"sqlite:///{target}"


@contextmanager
def _sqlite(folder: Path) -> Iterator[Kind]:
    yield _Sqlite(folder)


class _Postgresql:
    def __init__(self, url: str) -> None:
        self._url = url
        self._made = 0
        self._lock = threading.Lock()

    def fresh(self) -> str:
        return self._create("")

    def copy(self, url: str) -> str:
        return self._create(f"TEMPLATE {make_url(url).database}")

    def _create(self, how: str) -> str:
        self._made += 1
        name = f"upgrade_{self._made}"
        admin = create_engine(self._url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} {how}"))
        admin.dispose()
        return make_url(self._url).set(database=name).render_as_string(hide_password=False)


@contextmanager
def _postgresql(folder: Path) -> Iterator[Kind]:
    with postgresql(folder) as url:
        yield _Postgresql(url.render_as_string(hide_password=False))
