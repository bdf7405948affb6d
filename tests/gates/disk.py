"""A full disk, a restart, full again: verdicts as configured, nothing half stored, and all by
itself again once there is room."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
from sqlalchemy import create_engine, text

from service.disk_full import DiskFull
from tests.gates.gate import Findings
from tests.gates.nursery import Nursery
from tests.grey_parts import PNG, image, write_version
from tests.small_disk import SmallDisk, small_disk

RECOVERED_S = 60.0
VERDICTS = {20: "ok", 120: "review", 200: "ng"}


@dataclass
class Acknowledged:
    """What must be there at the end."""

    images: dict[str, bytes] = field(default_factory=dict)  # by inspection
    labels: dict[str, str] = field(default_factory=dict)  # to inspection


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """Both settings, so many rounds each, on a disk of its own."""
    found = Findings(seed=0)
    rounds = 20 if full else 1
    modes: tuple[DiskFull, ...] = ("answer", "refuse")
    with tempfile.TemporaryDirectory() as name:
        for number, mode in enumerate(modes):
            folder = Path(name) / mode
            write_version(folder / "store")
            with small_disk(folder / "data") as disk:
                _rounds(folder, disk, mode, range(number, number + rounds), found)
            progress((number + 1) / len(modes))
    return found


def _rounds(folder: Path, disk: SmallDisk, mode: DiskFull, rounds: range, found: Findings) -> None:
    kept = Acknowledged()
    nursery = Nursery(folder, disk_full=mode)
    try:
        nursery.start()
        for number in rounds:
            with httpx.Client(base_url=nursery.address, timeout=30) as camera:
                _shoot(camera, kept, found, number)
            # Killed, it leaves its log behind; ended, it needs room for a new one.
            stop = nursery.kill if number % 2 else nursery.stop
            for restarted in (False, True):
                if restarted:
                    stop()
                disk.fill()
                if restarted:
                    nursery.start()
                    disk.fill()
                with httpx.Client(base_url=nursery.address, timeout=30) as camera:
                    _when_full(camera, mode, kept, found, f"{number}-{restarted}")
            disk.make_room()
            took = _recover(nursery, kept)
            found.most("seconds to recover", round(took, 2))
            if took > RECOVERED_S:
                found.fail(f"{mode}: it took {took:.0f} s until results were stored again")
            found.count("times full", 2)
        with httpx.Client(base_url=nursery.address, timeout=30) as camera:
            _look(camera, kept, found)
        nursery.stop()
    finally:
        nursery.close()
    _intact(folder / "data", found)


def _shoot(camera: httpx.Client, kept: Acknowledged, found: Findings, number: int) -> None:
    """While there is room: a part of each kind, labelled."""
    for grey in VERDICTS:
        sent, answer = _inspect(camera, grey, f"room-{number}")
        result = answer.raise_for_status().json()
        kept.images[result["id"]] = sent
        if result["degraded"]:
            found.fail(f"there is room, and {result}")
        _label(camera, result["id"], kept)


def _when_full(
    camera: httpx.Client, mode: DiskFull, kept: Acknowledged, found: Findings, name: str
) -> None:
    for grey, verdict in VERDICTS.items():
        sent, answer = _inspect(camera, grey, name)
        result = answer.json()
        if answer.status_code == 200 and result["degraded"] is None:
            found.count("found a gap")  # then it is there, as any other is
            kept.images[result["id"]] = sent
        elif mode == "answer":
            found.count("answered, not stored")
            if (answer.status_code, result["verdict"]) != (200, verdict) or result["image"]:
                found.fail(f"a full disk answers a part that is {verdict} with {result}")
            elif camera.get(f"/v1/inspections/{result['id']}").status_code != 404:
                found.fail(f"not stored, and there is {result['id']}")
        else:
            found.count("refused")
            if (answer.status_code, result["verdict"]) != (503, "error"):
                found.fail(f"a full disk refuses with {answer.status_code} {result}")
    for id in list(kept.images)[:2]:
        status = _label(camera, id, kept)
        found.count("labels refused", status == 503)
        if status not in (201, 503):
            found.fail(f"a full disk answers a label with {status}")
    ready = camera.get("/health/ready")
    if ready.status_code != 200 or not any("full" in one for one in ready.json()["problems"]):
        found.fail(f"nobody is told that the disk is full: {ready.json()}")


def _recover(nursery: Nursery, kept: Acknowledged) -> float:
    """Seconds from there being room until a part is stored."""
    started = time.monotonic()
    with httpx.Client(base_url=nursery.address, timeout=30) as camera:
        while time.monotonic() < started + 2 * RECOVERED_S:
            sent, answer = _inspect(camera, 50, f"again-{time.monotonic()}")
            if answer.status_code == 200 and answer.json()["degraded"] is None:
                kept.images[answer.json()["id"]] = sent
                break
            time.sleep(0.1)  # as a camera would send the next one
    return time.monotonic() - started


def _inspect(camera: httpx.Client, grey: int, name: str) -> tuple[bytes, httpx.Response]:
    sent = image(grey) + name.encode()  # behind its end: a file of its own
    params = {"part_id": f"{name}-{grey}"}
    return sent, camera.post("/v1/inspect", params=params, content=sent, headers=PNG)


def _label(camera: httpx.Client, id: str, kept: Acknowledged) -> int:
    said = {"inspection_id": id, "verdict": "ok", "operator": "anna"}
    answer = camera.post("/v1/feedback", json=said)
    if answer.status_code == 201:
        kept.labels[answer.json()["id"]] = id
    return answer.status_code


def _look(camera: httpx.Client, kept: Acknowledged, found: Findings) -> None:
    for id, sent in kept.images.items():
        found.count("acknowledged inspections")
        if camera.get(f"/v1/inspections/{id}/image").content != sent:
            found.fail(f"{id}: the image is lost")
        if camera.get(f"/v1/inspections/{id}/heatmap").status_code != 200:
            found.fail(f"{id}: the heatmap is lost")
    found.count("acknowledged labels", len(kept.labels))
    for label, id in kept.labels.items():
        if label not in {one["id"] for one in camera.get(f"/v1/inspections/{id}/feedback").json()}:
            found.fail(f"{id}: a label is lost")


def _intact(data: Path, found: Findings) -> None:
    engine = create_engine(f"sqlite:///{data / 'kizu.sqlite3'}")
    with engine.connect() as connection:
        said = connection.scalar(text("PRAGMA integrity_check"))
        named: set[Any] = {
            name
            for row in connection.execute(
                text("SELECT image_sha256, heatmap_sha256 FROM inspections")
            )
            for name in row
        }
    engine.dispose()
    if said != "ok":
        found.fail(f"the database says {said}")
    there = {name for _, _, names in os.walk(data / "blobs") for name in names}
    found.count("files that nothing names", len(there - named))
    if any(name.startswith(".") for name in there):
        found.fail("there are files that were never finished")
