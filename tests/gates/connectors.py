"""A broker and a webhook's receiver are away for five minutes, and `kizu connect` and the service
are killed: each of them has every result, those of a camera in their order."""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from service.client import Kizu
from tests.broker import MOSQUITTO, Broker
from tests.gates.gate import CannotRun, Findings
from tests.gates.nursery import Nursery
from tests.grey_parts import image, write_version
from tests.receiver import SECRET, Receiver

CAMERAS = ("top", "side", "left/rear")
EVERY_S = 0.25  # of each camera
ARRIVED_S = 120.0
# As often as this what passes results on is killed; the service half as often.
KILLS_FULL, KILLS_SHORT = 20, 2
PROGRAM = Path(sys.executable).parent / "kizu"


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """All three cameras go on while the receivers are there, away, and back."""
    if MOSQUITTO is None:
        raise CannotRun("mosquitto is not there.", remedy="apt-get install mosquitto")
    found = Findings()
    random = np.random.default_rng(found.seed)
    away_s, kills = (300.0, KILLS_FULL) if full else (1.0, KILLS_SHORT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_version(folder / "store")
        nursery, receiver = Nursery(folder), Receiver()
        broker = Broker(folder / "broker")
        broker.start()
        passing = _Passing(_file(folder, nursery.address, broker, receiver))
        kizu = Kizu(nursery.address, patience_s=60)
        cameras = [_Camera(kizu, name) for name in CAMERAS]
        try:
            nursery.start()
            passing.start()
            broker.wait(lambda it: "online" in it.states())
            _until_it_follows(cameras[0], receiver)
            for camera in cameras:
                camera.start()
            broker.stop()
            receiver.stop()
            for number in range(kills):
                time.sleep(away_s / kills * random.uniform(0.5, 1.0))  # whenever it may be
                passing.kill()
                passing.start()
                if number % 2:
                    nursery.kill()
                    nursery.start()
                found.count("kills", 1 + number % 2)
                progress(0.9 * (number + 1) / kills)
            broker.start()
            receiver.start()
            back = time.monotonic()
            passing.kill()  # in the middle of what it has to catch up with
            passing.start()
            sent = {camera.name: camera.end() for camera in cameras}
            number = sum(map(len, sent.values()))
            for what in (broker, receiver):
                what.wait(lambda it: len(_ids(it)) >= number, ARRIVED_S)
            found.counts["seconds until all had arrived"] = round(time.monotonic() - back, 1)
        finally:
            passing.close()
            with kizu:
                for camera in cameras:
                    camera.end()
            broker.stop()
            receiver.stop()
            nursery.close()
    found.counts["seconds away"] = away_s
    found.counts["results"] = number
    for what in (broker, receiver):
        _compare(found, sent, what)
    progress(1.0)
    return found


def _file(folder: Path, address: str, broker: Broker, receiver: Receiver) -> Path:
    (folder / "secret").write_text(SECRET)
    file = folder / "connect.toml"
    file.write_text(
        f"""
        outbox = "{folder}/outbox.sqlite3"
        [service]
        url = "{address}"
        [[mqtt]]
        name = "broker"
        host = "127.0.0.1"
        port = {broker.port}
        [[webhook]]
        name = "receiver"
        url = "{receiver.url}"
        secret_file = "{folder}/secret"
        """
    )
    return file


class _Passing:
    """`kizu connect`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen([PROGRAM, "connect", self._file])

    def kill(self) -> None:
        assert self._process
        if self._process.poll() is not None:
            raise RuntimeError(f"kizu connect ended by itself, with {self._process.returncode}.")
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


class _Camera:
    """One after the other, as long as it has to be tried; what it sent is what was answered."""

    def __init__(self, kizu: Kizu, name: str) -> None:
        self.name = name
        self._kizu = kizu
        self._ids: list[str] = []
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def shoot(self) -> str:
        grey = 40 + len(self._ids) % 200
        result = self._kizu.inspect(
            image(grey), recipe="cap", image_type="image/png", camera=self.name
        )
        self._ids.append(result.id)
        return result.id

    def start(self) -> None:
        self._running = self._thread.submit(self._run)

    def end(self) -> list[str]:
        self._stop.set()
        self._thread.shutdown()
        if self._running:
            self._running.result()
        return self._ids

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.shoot()


def _until_it_follows(camera: _Camera, receiver: Receiver) -> None:
    """Its first look says from where on results are passed on, and nobody is told when that was;
    what came before is no promise's."""
    for _ in range(100):
        id = camera.shoot()
        try:
            receiver.wait(lambda it, id=id: id in _ids(it), 1)
        except AssertionError:
            continue
        camera._ids[:] = camera._ids[camera._ids.index(_ids(receiver)[0]) :]
        return
    raise TimeoutError("kizu connect passes nothing on.")


def _ids(what: Broker | Receiver) -> list[str]:
    """What somebody has heard of, each once, in the order in which it came."""
    heard = (
        [said["id"] for _, said in what.results()]
        if isinstance(what, Broker)
        else [id for id, _ in what.got]
    )
    return list(dict.fromkeys(heard))


def _compare(found: Findings, sent: dict[str, Sequence[str]], what: Broker | Receiver) -> None:
    name = type(what).__name__.lower()
    heard = _ids(what)
    all_heard = len(what.results()) if isinstance(what, Broker) else len(what.got)
    found.counts[f"twice at the {name}"] = all_heard - len(heard)
    for camera, ids in sent.items():
        known = set(ids)
        came = [id for id in heard if id in known]
        if missing := known - set(came):
            found.fail(f"{len(missing)} results of {camera} never came to the {name}")
        elif came != list(ids):
            found.fail(f"the results of {camera} came to the {name} in another order")
