"""Services to be killed, which another process forks in an instant."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any


class Nursery:
    """The process that forks services."""

    def __init__(
        self,
        folder: Path,
        database: str | None = None,
        *,
        before: Sequence[str | Path] = (),
        variables: Mapping[str, str] = MappingProxyType({}),
        module: str = "tests.gates.forks",
        **settings: Any,
    ) -> None:
        """On the folder's `store` and `data`; by default with SQLite in the latter. `before` is a
        command that runs it, `variables` are more of the environment, `module` is what is run."""
        data = folder / "data"
        database = database or f"sqlite:///{data / 'kizu.sqlite3'}"
        self._process = subprocess.Popen(
            [
                *before, sys.executable, "-m", module, folder / "store", data, database,
                json.dumps(settings),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | variables,
        )  # fmt: skip
        self.port = int(self._said())
        self.address = f"http://127.0.0.1:{self.port}"
        self.serving: int | None = None
        self.status = 0  # of what ended last

    def start(self, *command: str | Path) -> None:
        """Another service; it answers once it is up, since its port is open already. Or a `command`
        of kizu's."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([str(word) for word in command]) + "\n")
        self._process.stdin.flush()
        self.serving = int(self._said())

    def kill(self) -> None:
        """As a power cut would, but for what the kernel holds."""
        assert self.serving
        with suppress(ProcessLookupError):  # a command may have come to its end just now
            os.kill(self.serving, signal.SIGKILL)
        self.ended()

    def ended(self) -> int:
        """Wait for its end; its exit status, negative where a signal ended it."""
        word, status = self._said().split()
        assert word == "gone"
        self.serving, self.status = None, int(status)
        return self.status

    def stop(self) -> None:
        """As an operator would."""
        assert self.serving
        os.kill(self.serving, signal.SIGTERM)
        self.ended()

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
