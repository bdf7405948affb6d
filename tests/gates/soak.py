"""A long shift of everything that is ever asked, mixed: memory, descriptors, threads and temporary
files stay as they were."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from service.store import accounts
from service.store.database import open_database
from service.store.tables import Feedback, Inspection
from tests.gates.gate import CannotRun, Findings
from tests.gates.mixture import PASSWORD, USER, Client
from tests.grey_parts import write_version

CLIENTS = 4
ROUNDS = 100
# What comes to stay comes early: windows of the last 1,000 events, pages of databases, pools.
WARM = 0.2
MEMORY_MB = 20.0
MORE = 4  # threads or descriptors than ever while it became warm: pools breathe
WAL_MB = 64.0
SETTLED_S = 10.0
_JEMALLOC = find_library("jemalloc")
_SERVE = "from service.cli import main; main()"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Held:
    """What the service holds while nobody asks anything."""

    rss_mb: float
    pss_mb: float
    descriptors: int
    threads: int


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """So many requests by a few clients, who pause for each look. Raises CannotRun."""
    if full and not _JEMALLOC:
        raise CannotRun("needs jemalloc, as in the image: apt-get install libjemalloc2")
    found = Findings(seed=7)
    each = (100_000 if full else 600) // ROUNDS // CLIENTS if full else 15
    rounds = ROUNDS if full else 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for version in (1, 2):
            write_version(folder / "store", version)
        key = _accounts(folder / "data")
        shift = Shift(folder)
        try:
            port = shift.listening()
            clients = [Client(port, key, found, number) for number in range(CLIENTS)]
            held = []
            with ThreadPoolExecutor(CLIENTS) as pool:
                for number in range(rounds):
                    for done in [pool.submit(one.work, each) for one in clients]:
                        done.result()
                    held.append(shift.held())
                    found.most("write-ahead log, MB", shift.wal_mb())
                    progress((number + 1) / rounds)
            left = shift.temporary()
        finally:
            status = shift.end()
        if status != -signal.SIGTERM:
            found.fail(f"the service ended with {status}")
        if left:
            found.fail(f"temporary files are left: {sorted(left)[:5]}")
        _check(found, held, memory=full)
        _check_files(found, folder / "data")
    return found


class Shift:
    """The service, in a process with a folder for temporary files of its own."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._temporary = folder / "temporary"
        self._temporary.mkdir()
        given = {"STORE": folder / "store", "DATA": self._data, "PORT": 0, "DEVICE": "cpu"}
        named = {f"KIZU_{name}": str(value) for name, value in given.items()}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, "serve"], stderr=subprocess.PIPE, text=True,
            env=os.environ | named | {"TMPDIR": str(self._temporary)}
            | ({"LD_PRELOAD": _JEMALLOC} if _JEMALLOC else {}),
        )  # fmt: skip

    def listening(self) -> int:
        """On which port; its log is read and left from then on."""
        assert self._process.stderr
        for line in self._process.stderr:
            if '"listening"' in line:
                url: str = json.loads(line)["url"]
                break
        else:
            raise RuntimeError("the service did not start")
        self._reader = ThreadPoolExecutor(1)
        self._reader.submit(deque, self._process.stderr, 0)
        return int(url.rstrip("/").rpartition(":")[2])

    def held(self) -> Held:
        """Once all connections are closed at its end, too: nothing tells when."""
        until = time.monotonic() + SETTLED_S
        while self._connections() and time.monotonic() < until:
            time.sleep(0.01)
        process = Path(f"/proc/{self._process.pid}")
        rollup = (process / "smaps_rollup").read_text()
        rss, pss = (
            int(re.findall(rf"^{name}: +(\d+) kB", rollup, re.MULTILINE)[0]) / 1000
            for name in ("Rss", "Pss")
        )
        threads = re.findall(r"^Threads:\t(\d+)", (process / "status").read_text(), re.MULTILINE)
        return Held(rss, pss, len(list((process / "fd").iterdir())), int(threads[0]))

    def _connections(self) -> int:
        """Sockets beyond those that it has of its own: the one that listens, and asyncio's two."""
        count = 0
        for descriptor in Path(f"/proc/{self._process.pid}/fd").iterdir():
            try:
                count += str(descriptor.readlink()).startswith("socket:")
            except FileNotFoundError:
                continue  # closed just now
        return max(0, count - 3)

    def wal_mb(self) -> float:
        log = self._data / "kizu.sqlite3-wal"
        return round(log.stat().st_size / 1e6, 1) if log.exists() else 0.0

    def temporary(self) -> set[str]:
        """Files that nobody needs while nothing is asked."""
        files = [path for path in (self._data / "blobs").rglob("*") if path.is_file()]
        unfinished = [path for path in files if not _HASH.fullmatch(path.name)]
        return {str(path) for path in (*self._temporary.rglob("*"), *unfinished)}

    def end(self) -> int:
        self._process.terminate()
        status = self._process.wait(60)
        self._reader.shutdown()
        assert self._process.stderr
        self._process.stderr.close()
        return status


def _accounts(data: Path) -> str:
    """A user who can log in, and a key that opens all."""
    data.mkdir()
    database = open_database(f"sqlite:///{data / 'kizu.sqlite3'}")
    try:
        with Session(database) as session, session.begin():
            accounts.add_user(session, USER, "engineer", PASSWORD)
            return accounts.add_key(session, "soak", "admin")
    finally:
        database.dispose()


def _check(found: Findings, held: list[Held], *, memory: bool) -> None:
    """The rest against what was there once it was warm."""
    warm = max(1, round(WARM * len(held)))
    rest = held[warm:]
    for what in ("threads", "descriptors"):
        before = max(getattr(one, what) for one in held[:warm])
        after = max(getattr(one, what) for one in rest)
        found.counts |= {f"{what}, warm": before, f"{what}, later at most": after}
        if after > before + MORE:
            found.fail(f"{what}: {before} once it was warm, {after} later")
    # Over all that came later, by a straight line through it.
    slope, start = np.polyfit(np.arange(len(rest)), [one.rss_mb for one in rest], 1)
    grown = float(slope) * (len(rest) - 1)
    found.counts |= {
        "memory, warm, MB": round(float(start)), "memory, at the end, MB": round(rest[-1].rss_mb),
        "proportional, at the end, MB": round(rest[-1].pss_mb), "grown, MB": round(grown, 1),
    }  # fmt: skip
    if memory and grown > MEMORY_MB:
        found.fail(f"it grew by {grown:.0f} MB: {[round(one.rss_mb) for one in held]}")
    if found.counts["write-ahead log, MB"] > WAL_MB:
        found.fail(f"the write-ahead log grew to {found.counts['write-ahead log, MB']} MB")


def _check_files(found: Findings, data: Path) -> None:
    """Every file is named by a row, and every name has its file."""
    engine = create_engine(f"sqlite:///{data / 'kizu.sqlite3'}")
    try:
        with engine.connect() as connection:
            columns = Inspection.image_sha256, Inspection.heatmap_sha256, Feedback.mask_sha256
            named = {name for column in columns for name in connection.scalars(select(column))}
    finally:
        engine.dispose()
    there = {path.name for path in (data / "blobs").rglob("*") if path.is_file()}
    named -= {None}
    found.counts["files"] = len(there)
    if there - named:
        found.fail(f"{len(there - named)} files are named by no row")
    if named - there:
        found.fail(f"{len(named - there)} files are missing")
