"""Files by the sha256 of their content: images as they came, heatmaps, masks."""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from io import FileIO
from pathlib import Path

from models.durable import Draft, make_directory, sync_directory

_PIECE = 256 * 1024


class Blobs:
    """A directory of immutable files; writing the same content twice keeps it once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()
        make_directory(root)

    def put(self, data: bytes) -> str:
        """Keep `data` durably and return its sha256."""
        blob = self.draft(data)
        try:
            blob.write()
            blob.keep()
        finally:
            blob.discard()
        return blob.sha256

    def draft(self, data: bytes) -> "BlobDraft":
        """What may become a file; nothing is written yet."""
        return BlobDraft(data, self)

    def get(self, sha256: str) -> bytes | None:
        """The content, or None where it is not, or no longer, kept."""
        try:
            return self.path(sha256).read_bytes()
        except FileNotFoundError:
            return None

    def open(self, sha256: str) -> FileIO | None:
        """The content to be read piece by piece, whole though it be removed meanwhile; as `get`."""
        try:
            return self.path(sha256).open("rb", buffering=0)
        except FileNotFoundError:
            return None

    @contextmanager
    def holding(self, sha256: str) -> Iterator[None]:
        """Until a row that names it is there, nobody removes it: its content may have been here
        before, as another's that is to go."""
        with self._lock:
            self._held[sha256] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[sha256] -= 1
                self._held += Counter()  # forgets those that nobody holds

    def remove_unless(self, sha256: str, is_needed: Callable[[str], bool]) -> int:
        """Remove a file that nobody holds and that is not needed; how many bytes that freed."""
        path = self.path(sha256)
        with self._lock:
            if self._held[sha256] or not path.exists() or is_needed(sha256):
                return 0
            size = path.stat().st_size
            path.unlink()
        return size

    def all(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Every file, in no order; also what was being written when the power went."""
        for folder in self._root.iterdir():
            for path in folder.iterdir():
                with suppress(FileNotFoundError):  # it got its name, or was removed, meanwhile
                    yield path, path.stat()

    def path(self, sha256: str) -> Path:
        """Where a content lies, if it does."""
        return self._root / sha256[:2] / sha256


def pieces(file: FileIO) -> Generator[bytes]:
    """All of an open file, which is closed at the end."""
    with file:
        while piece := file.read(_PIECE):
            yield piece


class BlobDraft:
    """Content that is to be kept, or not: `write`, then `keep`, and `discard` in any case.

    The last may come from another thread than the others, at any time.
    """

    def __init__(self, data: bytes, blobs: Blobs) -> None:
        self._data = data
        self._blobs = blobs
        self._hold = ExitStack()
        self._directory: Path | None = None
        self._file: Draft | None = None
        self._discarded = False
        self._lock = threading.Lock()

    @cached_property
    def sha256(self) -> str:
        """What it is called."""
        return hashlib.sha256(self._data).hexdigest()

    def write(self) -> None:
        """Bring the content to the disk, where it is not there already."""
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
        """Make what was written last. Raises ValueError where there is nothing of it."""
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
        """Leave nothing behind that is not kept."""
        with self._lock:
            self._discarded = True
            self._hold.close()
            if self._file:
                self._file.discard()
                self._file = None
