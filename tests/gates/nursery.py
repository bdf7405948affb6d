"""Services to be killed, which another process forks in an instant."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


class Nursery:
    """The process that forks services."""

    def __init__(
        self,
        folder: Path,
        database: str | None = None,
        before: Sequence[str | Path] = (),
        **settings: object,
    ) -> None:
        """On the folder's `store` and `data`; by default with SQLite in the latter. `before` is a
        command that runs it."""
        said = {f"KIZU_{name.upper()}": str(value) for name, value in settings.items()}
        data = folder / "data"
        database = database or f"sqlite:///{data / 'kizu.sqlite3'}"
        self._process = subprocess.Popen(
            [*before, sys.executable, "-m", "tests.gates.forks", folder / "store", data, database],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | said,
        )  # fmt: skip
        self.port = int(self._said())
        self.address = f"http://127.0.0.1:{self.port}"
        self.serving: int | None = None

    def start(self) -> None:
        """Another service; it answers once it is up, since its port is open already."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.serving = int(self._said())

    def kill(self) -> None:
        """As a power cut would, but for what the kernel holds."""
        assert self.serving
        os.kill(self.serving, signal.SIGKILL)
        self.serving = None
        assert self._said() == "gone"

    def stop(self) -> None:
        """As an operator would."""
        assert self.serving
        os.kill(self.serving, signal.SIGTERM)
        self.serving = None
        assert self._said() == "gone"

    def sockets(self) -> int:
        """How many the service holds."""
        found = 0
        for descriptor in Path(f"/proc/{self.serving}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found += str(descriptor.readlink()).startswith("socket:")
        return found

    def memory(self) -> int:
        """Bytes of it that the service has."""
        pages = int(Path(f"/proc/{self.serving}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        if self.serving:
            self.kill()
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _said(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()
