"""Writing so that a power cut leaves the old state or the new one, never half of either."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Draft:
    """A file whose content is durable already, under a temporary name beside its own."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        self._temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(descriptor, 0o644)  # mkstemp gives 0600; others of the plant read these
                os.fsync(descriptor)
        except BaseException:
            self.discard()
            raise

    def publish(self) -> None:
        """Give it its name, atomically and durably."""
        try:
            self._temporary.replace(self._path)
        except BaseException:
            self.discard()
            raise
        sync_directory(self._path.parent)

    def discard(self) -> None:
        """Leave nothing of it, unless it was published."""
        self._temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically and durably: temporary name, fsync, rename, fsync."""
    Draft(path, data).publish()


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Fill a directory under a temporary name; it appears as `path`, whole, at a clean exit.

    Raises FileExistsError if `path` already holds something.
    """
    make_directory(path.parent)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".writing-{path.name}-"))
    try:
        yield temporary
        temporary.chmod(0o755)
        for directory, _, names in os.walk(temporary):
            for name in names:
                _sync_file(Path(directory) / name)
            sync_directory(Path(directory))
        rename_directory(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def rename_directory(source: Path, target: Path) -> None:
    """Rename durably. Raises FileExistsError if `target` already holds something."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise FileExistsError(f"{target} already exists") from error
    sync_directory(target.parent)


def make_directory(path: Path) -> None:
    """Make a directory with its missing parents, each of their names durable."""
    if path.is_dir():
        return
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for directory in missing:
        sync_directory(directory.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
