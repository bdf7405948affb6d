"""Files by their content in a directory of this computer, which one service has for itself."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from models.durable import Draft, make_directory, sync_directory
from service.store.blobs import Blob, BlobDraft, Blobs, OpenBlob

_BEING_WRITTEN = timedelta(days=1)


class LocalBlobs(Blobs):
    """A directory of immutable files."""

    orphans_after = timedelta(days=1)

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()
        make_directory(root)

    def draft(self, data: bytes) -> "LocalDraft":
        return LocalDraft(data, self)

    def get(self, sha256: str) -> bytes | None:
        try:
            return self.path(sha256).read_bytes()
        except FileNotFoundError:
            return None

    def open(self, sha256: str) -> OpenBlob | None:
        try:
            file = self.path(sha256).open("rb", buffering=0)
        except FileNotFoundError:
            return None
        return OpenBlob(file, os.fstat(file.fileno()).st_size)

    def address(self, sha256: str) -> str:
        return str(self.path(sha256).absolute())

    @contextmanager
    def holding(self, sha256: str) -> Iterator[None]:
        with self._lock:
            self._held[sha256] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[sha256] -= 1
                self._held += Counter()  # forgets those that nobody holds

    def remove_unless(self, sha256: str, is_needed: Callable[[str], bool]) -> int:
        path = self.path(sha256)
        with self._lock:
            if self._held[sha256] or not path.exists() or is_needed(sha256):
                return 0
            size = path.stat().st_size
            path.unlink()
        return size

    def all(self) -> Iterator[Blob]:
        for path, stat in self._files():
            if not path.name.startswith("."):
                yield Blob(path.name, stat.st_size, stat.st_mtime)

    def tidy(self, now: float, is_needed: Callable[[str], bool]) -> int:
        """Remove what was being written when the power went."""
        before = now - _BEING_WRITTEN.total_seconds()
        count = 0
        for path, stat in self._files():
            if path.name.startswith(".") and stat.st_mtime < before:
                path.unlink(missing_ok=True)
                count += 1
        return count

    def path(self, sha256: str) -> Path:
        """Where a content lies, if it does."""
        return self._root / sha256[:2] / sha256

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for folder in self._root.iterdir():
            for path in folder.iterdir():
                with suppress(FileNotFoundError):  # it got its name, or was removed, meanwhile
                    yield path, path.stat()


class LocalDraft(BlobDraft):
    """Content under a temporary name, until it is kept."""

    def __init__(self, data: bytes, blobs: LocalBlobs) -> None:
        super().__init__(data)
        self._blobs = blobs
        self._hold = ExitStack()
        self._directory: Path | None = None
        self._file: Draft | None = None
        self._discarded = False
        self._lock = threading.Lock()

    def write(self) -> None:
        path = self._blobs.path(self.sha256)
        self._hold.enter_context(self._blobs.holding(self.sha256))
        self._directory = path.parent
        if not path.exists():
            make_directory(path.parent)
            file = Draft(path, self._data)
            with self._lock:
                self._file = file
            if self._discarded:
                self.discard()

    def keep(self) -> None:
        with self._lock:
            if self._discarded or self._directory is None:
                raise ValueError("Only a draft that was written can be kept.")
            if self._file:
                self._file.publish()
                self._file = None
            else:
                # Whoever wrote it may not have got as far as syncing its name.
                sync_directory(self._directory)
                sync_directory(self._directory.parent)

    def discard(self) -> None:
        with self._lock:
            self._discarded = True
            self._hold.close()
            if self._file:
                self._file.discard()
                self._file = None
