"""A disk that is soon full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.gates.gate import CannotRun


class SmallDisk:
    """Of 16 MB, mounted at a directory."""

    def __init__(self, at: Path) -> None:
        self._ballast = at / "ballast"

    def fill(self) -> None:
        """To the last byte."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (65_536, 1):
                with suppress(OSError):
                    while True:
                        ballast.write(b"x" * size)

    def make_room(self) -> None:
        """As somebody who cleans up."""
        self._ballast.unlink()


@contextmanager
def small_disk(at: Path) -> Iterator[SmallDisk]:
    """At a new directory. Raises CannotRun where none can be mounted."""
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", at], capture_output=True, text=True
    )
    if mounted.returncode:
        raise CannotRun(f"It needs a small disk: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(at)
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)
