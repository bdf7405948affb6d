"""Files by the sha256 of their content: images as they came, heatmaps, masks."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

from models.durable import Draft, make_directory, sync_directory


class Blobs:
    """A directory of immutable files; writing the same content twice keeps it once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        make_directory(root)

    def put(self, data: bytes) -> str:
        """Keep `data` durably and return its sha256."""
        blob = self.draft(data)
        try:
            sha256 = blob.write()
            blob.keep()
        finally:
            blob.discard()
        return sha256

    def draft(self, data: bytes) -> "BlobDraft":
        """What may become a file; nothing is written yet."""
        return BlobDraft(data, self._path)

    def get(self, sha256: str) -> bytes | None:
        """The content, or None where it is not, or no longer, kept."""
        try:
            return self._path(sha256).read_bytes()
        except FileNotFoundError:
            return None

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256


class BlobDraft:
    """Content that is to be kept, or not: `write`, then `keep`, and `discard` in any case.

    The last may come from another thread than the others, at any time.
    """

    def __init__(self, data: bytes, path_of: Callable[[str], Path]) -> None:
        self._data = data
        self._path_of = path_of
        self._directory: Path | None = None
        self._file: Draft | None = None
        self._discarded = False
        self._lock = threading.Lock()

    def write(self) -> str:
        """Bring the content to the disk, where it is not there already, and return its sha256."""
        sha256 = hashlib.sha256(self._data).hexdigest()
        path = self._path_of(sha256)
        self._directory = path.parent
        if not path.exists():
            make_directory(path.parent)
            file = Draft(path, self._data)
            with self._lock:
                self._file = file
            if self._discarded:
                self.discard()
        return sha256

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
            if self._file:
                self._file.discard()
                self._file = None
