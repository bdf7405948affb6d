"""kill -9 while cameras and operators work: what was acknowledged is there, and there once."""

import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import numpy as np

from tests.gates.gate import Findings
from tests.gates.nursery import Nursery
from tests.grey_parts import PNG, image, write_version

CLIENTS = 4
LONGEST_S = 0.4


@dataclass
class Round:
    """What was acknowledged until the kill, and what was on its way."""

    inspected: dict[str, str] = field(default_factory=dict)  # key to id
    labelled: dict[str, str] = field(default_factory=dict)  # inspection to label
    open: list[str] = field(default_factory=list)  # keys without an answer


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """So many rounds: work, kill, start again, look."""
    found = Findings(seed=1)
    rng = np.random.default_rng(found.seed)
    rounds = 1000 if full else 6
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_version(folder / "store")
        nursery = Nursery(folder)
        try:
            last = Round()
            for number in range(rounds + 1):
                nursery.start()
                look(nursery.address, last, found)
                if number < rounds:
                    last = work(nursery, number, rng.uniform(0.02, LONGEST_S))
                    found.count("kills")
                    found.count("requests cut off", len(last.open))
                progress((number + 1) / (rounds + 1))
        finally:
            nursery.close()
    return found


def work(nursery: Nursery, number: int, seconds: float) -> Round:
    """So many seconds of it, then kill -9."""
    done = Round()
    ready, stopped = threading.Semaphore(0), threading.Event()
    clients = [
        threading.Thread(
            target=_client, args=(nursery.address, f"{number}-{one}", done, ready, stopped)
        )
        for one in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for _ in clients:
        ready.acquire()
    stopped.wait(seconds)  # nobody sets it: this is the time until the kill
    nursery.kill()
    stopped.set()
    for client in clients:
        client.join()
    return done


def _client(
    address: str, name: str, done: Round, ready: threading.Semaphore, stopped: threading.Event
) -> None:
    with httpx.Client(base_url=address, timeout=60) as camera:
        camera.get("/health/live")
        ready.release()
        number = 0
        while not stopped.is_set():
            key = f"{name}-{number}"
            number += 1
            try:
                id = inspect(camera, key)
            except httpx.HTTPError:
                done.open.append(key)
                return
            done.inspected[key] = id
            label = {"inspection_id": id, "verdict": "ok", "operator": name}
            try:
                answer = camera.post("/v1/feedback", json=label, headers={"idempotency-key": key})
            except httpx.HTTPError:
                return
            done.labelled[id] = answer.raise_for_status().json()["id"]


def inspect(camera: httpx.Client, key: str) -> str:
    """Have an image of its own inspected, under its key."""
    answer = camera.post(
        "/v1/inspect", params={"part_id": key}, content=_image(key),
        headers=PNG | {"idempotency-key": key},
    )  # fmt: skip
    id: str = answer.raise_for_status().json()["id"]
    return id


def _image(key: str) -> bytes:
    return image(sum(key.encode()) % 90)


def look(address: str, last: Round, found: Findings) -> None:
    """Whether what was acknowledged is there, and what is sent again makes one row."""
    with httpx.Client(base_url=address, timeout=30) as camera:
        for key, id in last.inspected.items():
            found.count("acknowledged inspections")
            if camera.get(f"/v1/inspections/{id}").status_code != 200:
                found.fail(f"{key}: the inspection is lost")
            elif camera.get(f"/v1/inspections/{id}/image").content != _image(key):
                found.fail(f"{key}: the image is lost")
            elif camera.get(f"/v1/inspections/{id}/heatmap").status_code != 200:
                found.fail(f"{key}: the heatmap is lost")
        for id, label in last.labelled.items():
            found.count("acknowledged labels")
            said = camera.get(f"/v1/inspections/{id}/feedback")
            if said.status_code != 200 or [one["id"] for one in said.json()] != [label]:
                found.fail(f"{id}: the label is lost, or doubled")
        for key in last.open:
            inspect(camera, key)
        for key in (*last.open, *last.inspected):
            rows = camera.get("/v1/inspections", params={"part_id": key}).json()["items"]
            if len(rows) != 1:
                found.fail(f"{key}: there are {len(rows)} of it")
