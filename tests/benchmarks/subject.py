"""Servers under test, each a process of its own that is asked over HTTP."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Peer:
    """How another library is asked: whether it is up, and for images as a form's file or plain."""

    ready: str = "/health"
    form: bool = False


PEERS = {
    "fastapi_plain": Peer(),
    "litserve_batched": Peer(form=True),
    "bentoml_batched": Peer(ready="/livez", form=True),
    "ray_batched": Peer(),
}


@dataclass(frozen=True)
class Subject:
    """A server that runs. Requests go to `path`, with a `form` or the image as it is."""

    name: str
    port: int
    path: str
    process: subprocess.Popen[bytes]
    form: bool = False

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time that it took so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> int:
        """Bytes that it has in memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def kizu(store: Path, data: Path, **settings: object) -> Iterator[Subject]:
    """`kizu serve` on a store."""
    port = free_port()
    command = [Path(sys.executable).with_name("kizu"), "serve", "--store", store, "--data", data,
               "--port", str(port)]  # fmt: skip
    variables = {f"KIZU_{name.upper()}": str(value) for name, value in settings.items()}
    with _running(command, variables, f"http://127.0.0.1:{port}/health/ready") as process:
        yield Subject("kizu", port, "/v1/inspect", process)


@contextmanager
def peer(name: str, bundle: Path, keep_in: Path | None) -> Iterator[Subject]:
    """What somebody would put around the same bundle with another library; it keeps its results
    in a directory, or not at all."""
    port = free_port()
    known = PEERS[name]
    command = [sys.executable, FOLDER / f"{name}.py", str(bundle), str(port)]
    variables = {"KEEP_IN": str(keep_in)} if keep_in else {}
    with _running(command, variables, f"http://127.0.0.1:{port}{known.ready}") as process:
        yield Subject(name, port, "/predict", process, known.form)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(
    command: list[object], variables: dict[str, str], ready: str
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [str(part) for part in command],
        env=os.environ | variables,
        cwd=FOLDER,  # where BentoML looks for the modules that it is to load
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # with the processes that it starts
    )
    try:
        until = time.monotonic() + 120
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} {command[1]} did not start.")
            time.sleep(0.1)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
        with contextlib.suppress(ProcessLookupError):  # what did not end with its parent
            os.killpg(process.pid, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
