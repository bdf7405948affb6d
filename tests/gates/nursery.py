"""Services to be killed, which another process forks in an instant."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from select import select
from types import MappingProxyType
from typing import Any

import httpx2 as httpx

_STARTED_S = 60


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
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - close closes it
        self._process = subprocess.Popen(
            [
                *before, sys.executable, "-m", module, folder / "store", data, database,
                json.dumps(settings),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints, text=True,
            env=os.environ | variables,
        )  # fmt: skip
        self.port = int(self._said())
        self.address = f"http://127.0.0.1:{self.port}"
        self.serving: int | None = None
        self.status = 0  # of what ended last

    def start(self, *command: str | Path) -> None:
        """Another service, which is up then. Or a `command` of kizu's, which has begun."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([str(word) for word in command]) + "\n")
        self._process.stdin.flush()
        self.serving = int(self._said())
        if not command:
            self._wait()

    def _wait(self) -> None:
        """Until it answers. Its port is open already, so one that ended would let all wait."""
        assert self._process.stdout
        for _ in range(_STARTED_S):
            with suppress(httpx.TimeoutException):
                httpx.get(f"{self.address}/health/live", timeout=1)
                return
            if select([self._process.stdout], [], [], 0)[0]:
                status = self.ended()
                self._complaints.seek(0)
                raise RuntimeError(f"It ended with {status}: {self._complaints.read()[-2000:]}")
        raise TimeoutError(f"It is not up after {_STARTED_S} s.")

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
        self._complaints.close()

    def _said(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()
