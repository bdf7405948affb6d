"""Whether a computer can do what is asked of it: `kizu doctor`.

Each check looks at the real thing, and says what to do where something is amiss.
"""

import os
import resource
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from models.bundle import list_recipes, list_versions, open_bundle
from models.durable import write_file
from models.errors import KizuError
from models.signature import Trust
from service.gate import is_loopback
from service.onnx_engine import OnnxDevice
from service.settings import Settings
from service.store import accounts
from service.store.database import Age, look_into_database
from service.store.place import open_objects
from service.store.tables import ApiKey, Inspection, User

Health = Literal["ok", "warning", "wrong"]

LEAST_FREE = 5_000_000_000  # bytes: some days of images on most lines
LEAST_FILES = 1024  # each camera's connection is one, and each row's file while it is written
CLOCK_S = 5.0
SLOW_MS = 200.0


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do about it."""

    subject: str
    health: Health
    text: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, one after the other; none stops the others."""
    yield from _told("disk", lambda: _disk(settings.data))
    yield from _told("database", lambda: _database(settings))
    yield from _told("objects", lambda: _objects(settings))
    yield from _told("bundles", lambda: _bundles(settings))
    yield from _told("limits", _limits)
    yield from _told("access", lambda: _access(settings))


def _told(subject: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a check finds, and what stopped it."""
    try:
        yield from check()
    except (KizuError, OSError, SQLAlchemyError) as error:
        yield Finding(subject, "wrong", str(error).splitlines()[0])


def _disk(data: Path) -> Iterator[Finding]:
    data.mkdir(parents=True, exist_ok=True)
    probe = data / ".doctor"
    started = time.perf_counter()
    write_file(probe, b"written and synced")
    took = 1000 * (time.perf_counter() - started)
    probe.unlink()
    slow = took > SLOW_MS
    yield Finding(
        "disk", "warning" if slow else "ok",
        f"{data}: a file is safe after {took:.0f} ms"
        + ("; each inspection waits for that: use a local disk" if slow else ""),
    )  # fmt: skip
    usage = shutil.disk_usage(data)
    yield Finding(
        "disk", "ok" if usage.free > LEAST_FREE else "warning",
        f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free"
        + ("" if usage.free > LEAST_FREE else "; make room: a full disk refuses images"),
    )  # fmt: skip


def _objects(settings: Settings) -> Iterator[Finding]:
    """Whether object stores that are named take, give and forget what is written."""
    for address in filter(None, (settings.blobs, settings.bundles)):
        store = open_objects(address)
        name = f"doctor/{uuid.uuid4().hex}"
        started = time.perf_counter()
        store.put(name, b"written")
        took = 1000 * (time.perf_counter() - started)
        whole = store.get(name) == b"written" and any(store.all("doctor"))
        store.remove(name)
        if not whole:
            yield Finding(
                "objects", "wrong", f"{address}: what is written cannot be read or listed"
            )
            continue
        slow = took > SLOW_MS
        yield Finding(
            "objects", "warning" if slow else "ok",
            f"{address}: an object is safe after {took:.0f} ms"
            + ("; each inspection waits for that" if slow else ""),
        )  # fmt: skip


def _database(settings: Settings) -> Iterator[Finding]:
    engine, age = look_into_database(settings.database_url)
    if engine is None:
        yield Finding("database", "ok", "there is none yet: kizu serve makes it")
        return
    try:
        if age != "current":
            yield _other_age(age)
            return
        with Session(engine) as session:
            count = session.scalar(select(func.count()).select_from(Inspection)) or 0
            yield Finding(
                "database", "ok", f"{engine.dialect.name}, up to date, {count:,} inspections"
            )
            yield from _whole(session, engine)
            yield _clock(session, engine)
    finally:
        engine.dispose()


def _other_age(age: Age) -> Finding:
    if age == "newer":
        return Finding(
            "database", "wrong",
            "it is of a newer Kizu; install that one again, or restore a backup from before it",
        )  # fmt: skip
    return Finding(
        "database", "warning",
        "it is of an older Kizu; kizu serve brings it up to date: make a backup first",
    )  # fmt: skip


def _whole(session: Session, engine: Engine) -> Iterator[Finding]:
    if engine.dialect.name == "sqlite":
        said = session.scalar(text("PRAGMA quick_check"))
        good = said == "ok"
        yield Finding(
            "database", "ok" if good else "wrong",
            "its file is whole" if good else f"its file is damaged: {said}; restore a backup",
        )  # fmt: skip


def _clock(session: Session, engine: Engine) -> Finding:
    """Beside the database's own, or the newest row: a clock that was set back."""
    here = datetime.now(UTC)
    if engine.dialect.name == "postgresql":
        other = session.scalar(text("SELECT now()"))
        what = "the database's"
    else:
        other = session.scalar(select(func.max(Inspection.created_at)))
        what = "the newest inspection's"
    gap = (other - here).total_seconds() if other else 0.0
    wrong = abs(gap) > CLOCK_S if engine.dialect.name == "postgresql" else gap > CLOCK_S
    if not wrong:
        return Finding("clock", "ok", f"{here:%Y-%m-%d %H:%M:%S} UTC")
    way = "before" if gap > 0 else "after"
    return Finding(
        "clock", "warning",
        f"{here:%Y-%m-%d %H:%M:%S} UTC is {abs(gap):.0f} s {way} {what}; set it by NTP",
    )  # fmt: skip


def _bundles(settings: Settings) -> Iterator[Finding]:
    recipes = list_recipes(settings.store)
    if not recipes:
        yield Finding("bundles", "warning", f"{settings.store} holds none; see kizu-train fit")
    device, trust = OnnxDevice(settings), Trust.of(settings.trusted_keys)
    for recipe in recipes:
        version = list_versions(settings.store, recipe)[-1]
        try:
            bundle = open_bundle(settings.store / recipe / str(version))
            trust.check(bundle)
            started = time.perf_counter()
            engine = device.open(bundle)
        except KizuError as error:
            yield Finding("bundles", "wrong", f"{recipe}, version {version}: {error}")
            continue
        took = time.perf_counter() - started
        yield Finding(
            "bundles", "ok",
            f"{recipe}, version {version}: whole, and agrees with its training on {engine.device} "
            f"({took:.1f} s)",
        )  # fmt: skip


def _limits() -> Iterator[Finding]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = files == resource.RLIM_INFINITY or files >= LEAST_FILES
    yield Finding(
        "limits", "ok" if enough else "warning",
        f"{files:,} open files" + ("" if enough else f"; allow {LEAST_FILES:,} (ulimit -n)"),
    )  # fmt: skip
    maps = Path("/proc/self/maps")
    if maps.exists():
        tamed = "jemalloc" in maps.read_text()
        yield Finding(
            "limits", "ok" if tamed else "warning",
            "memory by jemalloc" if tamed else "memory by the C library, with which a service "
            "grows by some 0.3 kB a request; apt-get install libjemalloc2, and set "
            "LD_PRELOAD=libjemalloc.so.2",
        )  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("limits", "ok", f"{os.cpu_count()} cores, {memory / 1e9:.1f} GB of memory")


def _access(settings: Settings) -> Iterator[Finding]:
    engine, age = look_into_database(settings.database_url)
    users: list[User] = []
    keys: list[ApiKey] = []
    if engine is not None:
        try:
            if age != "current":
                return  # of whom it knows, that is not known here
            with Session(engine) as session:
                users, keys = accounts.users(session), accounts.keys(session)
        finally:
            engine.dispose()
    known = f"{len(users)} users, {len(keys)} keys"
    here = is_loopback(settings.host)
    if settings.access == "open" and not here:
        yield Finding(
            "access", "warning",
            f"{settings.host} is open to all who reach it; set KIZU_ACCESS to closed",
        )  # fmt: skip
    elif not users and not keys and not here:
        yield Finding(
            "access", "warning", "nobody can come in yet; see kizu user add and kizu key add"
        )
    else:
        yield Finding("access", "ok", known)
    if not any(user.role == "admin" for user in users) and users:
        yield Finding("access", "warning", "nobody is an admin; see kizu user role")
