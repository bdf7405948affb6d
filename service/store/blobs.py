"""Files by the sha256 of their content: images as they came, heatmaps, masks, reports."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import BinaryIO

_PIECE = 256 * 1024


@dataclass(frozen=True)
class Blob:
    """One that is kept. `written_at` is in seconds since 1970."""

    sha256: str
    size: int
    written_at: float


class Blobs(ABC):
    """Immutable files; writing the same content twice keeps it once.

    What cannot be written or read for now raises OSError, or StorageUnavailable.
    """

    # Younger ones that no row names may be a request's that is under way, here or after a restart.
    orphans_after: timedelta

    def start(self) -> None:  # noqa: B027 - not every kind has something to do
        """Begin what goes on beside, in the process that lasts."""

    def close(self) -> None:  # noqa: B027
        """End it."""

    @property
    def problem(self) -> str | None:
        """What people should know of it."""
        return None

    @property
    def waiting(self) -> int:
        """How many are durable, and not yet where they belong."""
        return 0

    def put(self, data: bytes) -> str:
        """Keep `data` durably and return its sha256."""
        blob = self.draft(data)
        try:
            blob.write()
            blob.keep()
        finally:
            blob.discard()
        return blob.sha256

    @abstractmethod
    def draft(self, data: bytes) -> "BlobDraft":
        """What may become a file; nothing is written yet."""

    @abstractmethod
    def get(self, sha256: str) -> bytes | None:
        """The content, or None where it is not, or no longer, kept."""

    @abstractmethod
    def open(self, sha256: str) -> "OpenBlob | None":
        """The content to be read piece by piece, whole though it be removed meanwhile; as `get`."""

    @abstractmethod
    def address(self, sha256: str) -> str:
        """Where a content lies, if it does, as an address of fsspec's."""

    @abstractmethod
    def holding(self, sha256: str) -> AbstractContextManager[None]:
        """Until a row that names it is there, nobody removes it: its content may have been here
        before, as another's that is to go."""

    @abstractmethod
    def remove_unless(self, sha256: str, is_needed: Callable[[str], bool]) -> int:
        """Remove a file that nobody holds and that is not needed; how many bytes that freed."""

    @abstractmethod
    def all(self) -> Iterator[Blob]:
        """Every one, in no order."""

    @abstractmethod
    def tidy(self, now: float, is_needed: Callable[[str], bool]) -> int:
        """End what was left half done long ago; how many that were."""


class BlobDraft(ABC):
    """Content that is to be kept, or not: `write`, then `keep`, and `discard` in any case.

    The last may come from another thread than the others, at any time.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data

    @cached_property
    def sha256(self) -> str:
        """What it is called."""
        return hashlib.sha256(self._data).hexdigest()

    @abstractmethod
    def write(self) -> None:
        """Bring the content to where it is kept, where it is not there already."""

    @abstractmethod
    def keep(self) -> None:
        """Make what was written last. Raises ValueError where there is nothing of it."""

    @abstractmethod
    def discard(self) -> None:
        """Leave nothing behind that is not kept."""


@dataclass(frozen=True)
class OpenBlob:
    """One to be read, of `size` bytes."""

    file: BinaryIO
    size: int

    def pieces(self) -> Generator[bytes]:
        """All of it; it is closed at the end."""
        with self.file:
            while piece := self.file.read(_PIECE):
                yield piece
