"""One at a time in a directory, among threads and processes; the kernel frees what a killed one
held."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Wait until nobody else has it. Raises OSError where there is no such directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # Explicitly: a process that is being forked just now would hold it on.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
