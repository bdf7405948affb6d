"""Files by the sha256 of their content: images as they came, heatmaps, masks."""

import hashlib
from pathlib import Path

from models.durable import make_directory, sync_directory, write_file


class Blobs:
    """A directory of immutable files; writing the same content twice keeps it once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        make_directory(root)

    def put(self, data: bytes) -> str:
        """Keep `data` durably and return its sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._path(sha256)
        if path.exists():
            # Whoever wrote it may not have got as far as syncing its name.
            sync_directory(path.parent)
            sync_directory(self._root)
        else:
            make_directory(path.parent)
            write_file(path, data)
        return sha256

    def get(self, sha256: str) -> bytes | None:
        """The content, or None where it is not, or no longer, kept."""
        try:
            return self._path(sha256).read_bytes()
        except FileNotFoundError:
            return None

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256
