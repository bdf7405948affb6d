"""Room on the disk that is kept back, so that on a full one there is some to make room with."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BYTES = 4 * 2**20
_LEAST = 2**16


class Reserve:
    """A file of nothing. A database needs some room to be opened, and to say what was removed."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def take(self) -> None:
        """Keep the whole of it back; where there is not so much, what there is."""
        size, step = 0, _BYTES
        while step >= _LEAST and size < _BYTES:
            try:
                with self._file.open("ab") as file:
                    os.posix_fallocate(file.fileno(), 0, size + step)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                step //= 2
            else:
                size += step

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Give its room to what is done within."""
        self._file.unlink(missing_ok=True)
        try:
            yield
        finally:
            self.take()
