"""That a data directory is one service's alone: two would remove files that the other has just
found there."""

import fcntl
import os
from pathlib import Path

from service.settings import SettingsError


class Owner:
    """Of a directory, until `close`, or until the process ends, however it does."""

    def __init__(self, data: Path) -> None:
        """Raises SettingsError where another service has it."""
        self._descriptor = os.open(data / "owner", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise SettingsError(
                f"{data} is another service's, which runs.",
                remedy="End that one first, or give each its own KIZU_DATA; several services share "
                "KIZU_DATABASE, KIZU_BLOBS and KIZU_BUNDLES.",
            ) from error

    def close(self) -> None:
        """Let another have it."""
        # Explicitly: a process that is being forked just now would hold it on.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
