"""An S3 that forgets all at its end, at the end of a cable."""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.request import Request, urlopen

from tests.cable import Cable, cable


@dataclass
class Moto:
    """The process, and its port."""

    pid: int
    port: int


@dataclass
class Bucket:
    """A bucket of its own, the cable to it, and the port behind; its variables say where it is."""

    address: str
    cable: Cable
    port: int

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.cable.port}",
            "AWS_ACCESS_KEY_ID": "kizu",
            "AWS_SECRET_ACCESS_KEY": "kizu",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextmanager
def object_store() -> Iterator[Moto]:
    """Moto's, as a process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", "0"],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr
    try:
        said = next(line for line in process.stderr if "Running on" in line)
        found = re.search(r":(\d+)", said.partition("://")[2])
        assert found, said
        # What it says later must not fill the pipe.
        with ExitStack() as ending:
            drain = subprocess.Popen(
                [sys.executable, "-c", "import sys; [None for _ in sys.stdin]"],
                stdin=process.stderr,
            )
            ending.callback(drain.wait)
            ending.callback(drain.kill)
            yield Moto(process.pid, int(found[1]))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@contextmanager
def bucket(moto: Moto) -> Iterator[Bucket]:
    """A new one at `object_store`."""
    name = f"kizu-{uuid.uuid4().hex}"
    with urlopen(Request(f"http://127.0.0.1:{moto.port}/{name}", method="PUT")):
        pass
    with cable(moto.port) as lead:
        yield Bucket(f"s3://{name}/plant", lead, moto.port)
