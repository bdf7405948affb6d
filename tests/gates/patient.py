"""A service whose device is to fail, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


class Patient:
    """Loads all at once, and serves when it is told to; tells what it logs."""

    def __init__(self) -> None:
        # Not forked from one that has loaded all: ONNX Runtime has threads from its import on, and
        # would end a child by a signal, whatever the child's own way to end.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.gates.faulty"],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._told: list[tuple[float, dict[str, Any]]] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def start(self, store: Path, data: Path, **settings: object) -> int:
        """Serve; the port on which it listens."""
        named = {f"KIZU_{name.upper()}": str(value) for name, value in settings.items()}
        self.say(json.dumps(named | {"KIZU_STORE": str(store), "KIZU_DATA": str(data)}))
        self.wait("listening", 30)
        return int(self.all("listening")[0][1]["url"].rstrip("/").rpartition(":")[2])

    def say(self, line: str) -> None:
        """What its device does from now on."""
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def wait(self, event: str, seconds: float) -> float:
        """When it came first. Raises TimeoutError."""
        with self._news:
            if not self._news.wait_for(lambda: self.all(event), seconds):
                raise TimeoutError(f"{event!r} did not come within {seconds:g} s")
            return self.all(event)[0][0]

    def all(self, event: str) -> list[tuple[float, dict[str, Any]]]:
        """When it came each time, and what it said."""
        return [one for one in self._told if one[1]["event"] == event]

    def end(self, number: signal.Signals) -> int:
        """Send it a signal, if it is still there; its exit status."""
        if not self.all("gone"):
            os.kill(self._process.pid, number)
        self._reader.join()
        assert self._process.stdin
        assert self._process.stderr
        self._process.stdin.close()
        self._process.stderr.close()
        return self._process.wait()

    def _read(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            try:
                self._tell(json.loads(line))
            except ValueError:
                self._tell({"event": "no line of a log", "line": line})
        self._process.wait()
        self._tell({"event": "gone"})

    def _tell(self, said: dict[str, Any]) -> None:
        if said["event"] != "request":
            with self._news:
                self._told.append((time.monotonic(), said))
                self._news.notify_all()
