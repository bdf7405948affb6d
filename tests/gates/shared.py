"""Two services share a database and an object store; each is killed and cut off from both while the
other goes on and removes what is old: no result is lost, and no image that a row names.

    python -m tests.gates.shared STORE DATA DATABASE SETTINGS

is `tests.gates.forks` with a retention that looks all the time.
"""

import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import numpy as np
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from models.bundle import open_bundle
from service import retention
from service.client import Kizu
from service.store.local_blobs import LocalBlobs
from service.store.mirror import Mirror
from service.store.object_blobs import ObjectBlobs
from service.store.objects import ObjectStore
from service.store.tables import Inspection
from tests.cable import Cable, cable
from tests.gates import forks
from tests.gates.gate import Findings
from tests.gates.nursery import Nursery
from tests.grey_parts import image, write_version
from tests.object_store import Bucket, bucket, object_store
from tests.postgresql import postgresql

CAMERAS = 4
EVERY_S = 0.05  # of each camera
# So few contents that what is removed is, again and again, what has just come anew.
GREYS = range(40, 48)
KEEP_S = 1.0
PARTS = 5  # of each camera between rounds
ARRIVED_S = 60.0
PATIENCE_S = 60


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """Cameras ask both; round by round something happens to one of them."""
    found = Findings()
    random = np.random.default_rng(found.seed)
    rounds, longest_s = (60, 8.0) if full else (3, 0.5)
    with ExitStack() as place:
        folder = Path(place.enter_context(tempfile.TemporaryDirectory()))
        url = place.enter_context(postgresql(folder))
        made = place.enter_context(bucket(place.enter_context(object_store())))
        os.environ.update(made.environment)
        store = ObjectStore(f"{made.address}/images")
        Mirror(ObjectStore(f"{made.address}/bundles"), folder / "made").send(
            open_bundle(write_version(folder / "made"))
        )
        services = [
            place.enter_context(_service(folder / name, url, made)) for name in ("first", "second")
        ]
        cameras = [
            _Camera([one.nursery.address for one in services], seed) for seed in range(CAMERAS)
        ]
        try:
            for camera in cameras:
                camera.start()
            for number in range(rounds):
                for camera in cameras:
                    camera.more(PARTS)
                service = services[int(random.integers(2))]
                what = str(random.choice(["killed", "without images", "without database"]))
                service.suffer(what, float(random.uniform(0.3, 1.0)) * longest_s)
                found.count(what)
                progress(0.9 * (number + 1) / rounds)
        finally:
            ids = [id for camera in cameras for id in camera.end()]
        for service in services:
            service.arrive()
            service.nursery.stop()
        found.count("parts", len(ids))
        database = create_engine(url)
        _compare(found, ids, database, store, folder)
        database.dispose()
    progress(1.0)
    return found


class _Service:
    """One with a disk and cables of its own."""

    def __init__(self, nursery: Nursery, database: Cable, objects: Cable, disk: LocalBlobs) -> None:
        self.nursery = nursery
        self._cables = {"without images": objects, "without database": database}
        self._disk = disk

    def start(self) -> None:
        try:
            self.nursery.start()
        except RuntimeError:
            self.nursery.start()  # as its supervisor would, where the database took too long

    def suffer(self, what: str, seconds: float) -> None:
        """For so long; then all is well again."""
        if what == "killed":
            time.sleep(seconds)
            self.nursery.kill()
            self.start()
            return
        self._cables[what].pull()
        time.sleep(seconds)
        self._cables[what].plug()

    def arrive(self) -> None:
        """Until nothing waits on its disk any more."""
        until = time.monotonic() + ARRIVED_S
        while time.monotonic() < until:
            said = httpx.get(f"{self.nursery.address}/metrics", timeout=30).text
            if "kizu_spooled_results 0.0" in said and not list(self._disk.all()):
                return
            time.sleep(0.1)  # nothing tells when


@contextmanager
def _service(folder: Path, url: URL, made: Bucket) -> Iterator[_Service]:
    (folder / "store").mkdir(parents=True)
    with (
        cable(Path(str(url.query["host"])) / ".s.PGSQL.5432") as database,
        cable(made.port) as objects,
    ):
        far = url.set(host="127.0.0.1", port=database.port, query={})
        nursery = Nursery(
            folder, far.render_as_string(hide_password=False), module="tests.gates.shared",
            variables=replace(made, cable=objects).environment,
            blobs=f"{made.address}/images", bundles=f"{made.address}/bundles",
            keep_ok_days=KEEP_S / 86400,
        )  # fmt: skip
        service = _Service(nursery, database, objects, LocalBlobs(folder / "data" / "blobs"))
        try:
            service.start()
            yield service
        finally:
            nursery.close()


class _Camera:
    """Has parts inspected by whichever service, each until it is; what it was answered counts."""

    def __init__(self, addresses: Sequence[str], seed: int) -> None:
        self._open = ExitStack()
        self._services = [
            self._open.enter_context(Kizu(address, patience_s=PATIENCE_S)) for address in addresses
        ]
        self._random = np.random.default_rng(seed)
        self._ids: list[str] = []
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def start(self) -> None:
        self._running = self._thread.submit(self._run)

    def more(self, parts: int) -> None:
        """Until so many more were inspected."""
        wanted = len(self._ids) + parts
        with self._news:
            if not self._news.wait_for(lambda: len(self._ids) >= wanted, 2 * PATIENCE_S):
                raise TimeoutError("No parts are inspected any more.")

    def end(self) -> list[str]:
        self._stop.set()
        self._thread.shutdown()
        self._open.close()
        if self._running:
            self._running.result()
        return self._ids

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            service = self._services[int(self._random.integers(2))]
            part = image(int(self._random.choice(list(GREYS))))
            result = service.inspect(part, recipe="cap", image_type="image/png")
            with self._news:
                self._ids.append(result.id)
                self._news.notify_all()


def _compare(
    found: Findings, ids: Sequence[str], database: Engine, store: ObjectStore, folder: Path
) -> None:
    with Session(database) as session:
        rows = list(session.scalars(select(Inspection)))
    known = {row.id for row in rows}
    for id in set(ids) - known:
        found.fail(f"{id} was answered and is not in the database")
    named = {
        sha256
        for row in rows if row.files_removed_at is None
        for sha256 in (row.image_sha256, row.heatmap_sha256)
    }  # fmt: skip
    blobs = ObjectBlobs(store, LocalBlobs(folder / "here"))
    aside = sum(blobs.get(sha256) is None for sha256 in named)
    found.counts |= {
        "removed": len(rows) - sum(row.files_removed_at is None for row in rows),
        "put aside while they were entered": aside,
    }
    blobs.tidy(time.time() + 2 * 86400, lambda sha256: sha256 in named)  # what the sweep does
    for sha256 in named:
        data = blobs.get(sha256)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            found.fail(f"a row names {sha256}, and it is not in the object store")


if __name__ == "__main__":
    retention.EVERY_S = 0.2
    forks.main()
