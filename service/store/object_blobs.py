"""Files by their content in an object store, which any number of services share.

While it does not answer, what is written waits on this computer's disk, and is brought later.

What is removed is put aside first, for a day: in between another service may have entered a row
that names the very same content, and then it is brought back.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING

import structlog

from service.errors import StorageUnavailable
from service.store.blobs import Blob, BlobDraft, Blobs, OpenBlob
from service.store.local_blobs import LocalBlobs, LocalDraft

if TYPE_CHECKING:
    from service.store.objects import ObjectStore  # only where there is one, its package is

log = structlog.get_logger()

# A request has an answer to give; what waits has time.
_PATIENCE_S = 2.0
_PATIENCE_LATER_S = 60.0
_LOOK_EVERY_S = 1.0
_ASK_EVERY_S = 5.0  # whether it answers again
_LOOK_ANYHOW_EVERY_S = 60.0  # other processes let files wait in the same directory
_ASIDE = "removed"
_ASIDE_FOR = timedelta(days=1)
_HOUR = "%Y%m%dT%H"
_PUT_ASIDE = re.compile(rf"{_ASIDE}/([0-9a-f]{{64}})/([0-9]{{8}}T[0-9]{{2}})")
_KEPT = re.compile(r"[0-9a-f]/([0-9a-f]{64})")
_PROBE = "probe"


class ObjectBlobs(Blobs):
    """Below one address of an object store, with a directory for what waits."""

    # Other services' results may wait for the database, and nobody here knows of them.
    orphans_after = timedelta(days=30)

    def __init__(self, store: "ObjectStore", here: LocalBlobs) -> None:
        """What cannot be brought to the store is an error, until `start`."""
        self._store = store
        self._here = here
        self._away = False
        self._lets_wait = False
        self._waiting = 0
        self._counting = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="kizu-blobs", daemon=True)

    def start(self) -> None:
        """From now on what cannot be brought waits here, also what waits since an earlier time."""
        self._lets_wait = True
        self._waiting = sum(1 for _ in self._here.all())
        self._thread.start()

    def close(self) -> None:
        """Stop; what waits goes on waiting."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def problem(self) -> str | None:
        if self._away:
            return f"The object store is away; {self.waiting} files wait on this computer's disk."
        return None

    @property
    def waiting(self) -> int:
        return self._waiting

    def draft(self, data: bytes) -> "ObjectDraft":
        return ObjectDraft(data, self)

    def get(self, sha256: str) -> bytes | None:
        found = self._here.get(sha256)
        return self._get(sha256) if found is None else found

    def open(self, sha256: str) -> OpenBlob | None:
        found = self._here.open(sha256)
        if found is None and (data := self._get(sha256)) is not None:
            found = OpenBlob(BytesIO(data), len(data))
        return found

    def address(self, sha256: str) -> str:
        if self._here.path(sha256).exists():
            return self._here.address(sha256)
        return self._store.address(_name(sha256))

    def holding(self, sha256: str) -> AbstractContextManager[None]:
        return self._here.holding(sha256)

    def remove_unless(self, sha256: str, is_needed: Callable[[str], bool]) -> int:
        if is_needed(sha256):
            return 0
        with self._noticing():
            return self._here.remove_unless(sha256, is_needed) + self._put_aside(sha256, is_needed)

    def _put_aside(self, sha256: str, is_needed: Callable[[str], bool]) -> int:
        name, aside = _name(sha256), f"{_ASIDE}/{sha256}/{datetime.now(UTC):{_HOUR}}"
        size = self._store.size(name)
        if size is None or not self._store.copy(name, aside):
            return 0
        self._store.remove(name)
        if is_needed(sha256):
            self._store.copy(aside, name)
            return 0
        return size

    def all(self) -> Iterator[Blob]:
        yield from self._here.all()
        for first in "0123456789abcdef":  # all at once would not fit into memory
            for found in self._store.all(first):
                if named := _KEPT.fullmatch(found.name):
                    yield Blob(named[1], found.size, found.written_at)

    def tidy(self, now: float, is_needed: Callable[[str], bool]) -> int:
        """Remove for good what was put aside a day ago, or bring it back where it is needed."""
        for found in self._store.all(_ASIDE):
            told = _PUT_ASIDE.fullmatch(found.name)
            if not told:
                continue  # nobody knows what that is, so it stays
            sha256, hour = told.groups()
            # Within the hour that is named.
            latest = datetime.strptime(hour, _HOUR).replace(tzinfo=UTC) + timedelta(hours=1)
            if (latest + _ASIDE_FOR).timestamp() > now:
                continue
            if is_needed(sha256):
                self._store.copy(found.name, _name(sha256))
                log.info("a removed file is needed again", sha256=sha256)
            self._store.remove(found.name)
        return self._here.tidy(now, is_needed)

    def bring(self) -> None:
        """Bring what waits to the store, as far as it answers."""
        with suppress(StorageUnavailable), self._noticing():
            if self._away:
                self._store.put(_PROBE, b"", patience_s=_PATIENCE_S)
                self._away = False
                log.info("the object store is there again", waiting=self.waiting)
            for blob in self._here.all():
                if self._stop.is_set():
                    return
                data = self._here.get(blob.sha256)
                if data is None:
                    continue
                self._store.put(_name(blob.sha256), data, patience_s=_PATIENCE_LATER_S)
                # One that a request holds still goes the next time.
                if self._here.remove_unless(blob.sha256, lambda _: False):
                    self._count(-1)
            left = sum(1 for _ in self._here.all())
            self._count(left - self._waiting)

    def write(self, sha256: str, data: bytes) -> LocalDraft | None:
        """To the store; where it does not answer, what is to be kept here instead."""
        if not self._away:
            try:
                with self._noticing():
                    self._store.put(_name(sha256), data, patience_s=_PATIENCE_S)
            except StorageUnavailable:
                if not self._lets_wait:
                    raise
            else:
                return None
        draft = self._here.draft(data)
        draft.write()
        return draft

    def waits(self) -> None:
        """One more was kept here."""
        self._count(1)

    def _get(self, sha256: str) -> bytes | None:
        if self._away:
            raise _unavailable()
        try:
            with self._noticing():
                return self._store.get(_name(sha256))
        except StorageUnavailable as error:
            if self._lets_wait:
                raise _unavailable() from error
            raise

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """That the store is away is found out once, since that takes seconds; then it is left alone
        until it answers again."""
        try:
            yield
        except StorageUnavailable as error:
            if self._lets_wait:
                if not self._away:
                    log.error("the object store is away", error=error.message)
                self._away = True
            raise

    def _count(self, more: int) -> None:
        with self._counting:
            self._waiting += more

    def _loop(self) -> None:
        looked = time.monotonic()
        while not self._stop.wait(_ASK_EVERY_S if self._away else _LOOK_EVERY_S):
            if self._away or self.waiting or time.monotonic() - looked > _LOOK_ANYHOW_EVERY_S:
                looked = time.monotonic()
                try:
                    self.bring()
                except OSError as error:
                    log.error("what waits cannot be read", error=str(error))


class ObjectDraft(BlobDraft):
    """Content that is in the store once it is written: what nobody keeps is an orphan there, which
    a sweep removes."""

    def __init__(self, data: bytes, blobs: ObjectBlobs) -> None:
        super().__init__(data)
        self._blobs = blobs
        self._here: LocalDraft | None = None
        self._written = False
        self._discarded = False
        self._lock = threading.Lock()

    def write(self) -> None:
        here = self._blobs.write(self.sha256, self._data)
        with self._lock:
            self._here, self._written = here, True
            if self._discarded and here:
                here.discard()

    def keep(self) -> None:
        with self._lock:
            if self._discarded or not self._written:
                raise ValueError("Only a draft that was written can be kept.")
            if self._here:
                self._here.keep()
                self._blobs.waits()

    def discard(self) -> None:
        with self._lock:
            self._discarded = True
            if self._here:
                self._here.discard()


def _unavailable() -> StorageUnavailable:
    """Without the store's own words, which say where it is: they are for the log."""
    return StorageUnavailable(
        "The object store with the images is away.", remedy="The log says why; try again later."
    )


def _name(sha256: str) -> str:
    return f"{sha256[0]}/{sha256}"
