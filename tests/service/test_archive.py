"""A full disk refuses images, or answers without keeping anything; then it is as before."""

import threading

import numpy as np
import pytest
import structlog
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service import retention
from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from service.store.database import open_database
from service.store.tables import Inspection, ShadowResult
from tests.grey_parts import PNG, image, write_version


@pytest.fixture
def serve(tmp_path, disk):
    write_version(tmp_path / "store")

    def made(**fields):
        settings = Settings(store=tmp_path / "store", data=tmp_path / "data", **fields)
        return TestClient(create_app(settings, open_engine=lambda bundle: FakeEngine()))

    return made


def shoot(client, grey, **query):
    return client.post("/v1/inspect", content=image(grey), headers=PNG, params=query)


def test_a_full_disk_refuses_unless_it_is_to_answer(serve, disk):
    with serve() as client:
        disk.fill()
        answer = shoot(client, 30)
        assert answer.status_code == 503
        assert answer.json()["verdict"] == "error"
        assert "The disk is full" in answer.json()["detail"]
        assert "1 images were refused" in client.get("/health/ready").json()["problems"][0]
        disk.make_room()
        assert shoot(client, 30).json()["degraded"] is None
        assert client.get("/health/ready").json()["problems"] == []


def test_an_answer_that_is_not_stored_says_so_and_has_the_thresholds_in_force(serve, disk):
    with serve(disk_full="answer") as client:
        moved = {"review": 20, "ng": 40, "bundle_version": 1, "by": "eva", "reason": "strict"}
        assert client.post("/v1/recipes/cap/thresholds", json=moved).status_code == 201
        disk.fill()
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                told = shoot(client, 30, heatmap="png8", part_id="p").json()
        # Once, not for each part; threads that read the database there may log as well.
        assert [log["event"] for log in logs].count("the disk is full") == 1
        assert (told["degraded"], told["verdict"], told["score"]) == ("not stored", "review", 30)
        assert (told["image"], told["heatmap"], told["heatmap_data"]) == (None, None, None)
        assert client.get(f"/v1/inspections/{told['id']}").status_code == 404
        assert client.get("/v1/inspections").json()["items"] == []
        problems = client.get("/health/ready").json()["problems"]
        assert problems == ["The disk is full; since then 3 images were answered, not stored."]
        assert "kizu_unstored_total 3.0" in client.get("/metrics").text


def test_a_part_that_comes_again_with_its_key_is_stored_then(serve, disk):
    with serve(disk_full="answer") as client:
        headers = PNG | {"idempotency-key": "a"}
        disk.fill()
        first = client.post("/v1/inspect", content=image(30), headers=headers).json()
        disk.make_room()
        second = client.post("/v1/inspect", content=image(30), headers=headers).json()
        assert (first["degraded"], second["degraded"]) == ("not stored", None)
        assert client.get(second["image"]).content == image(30)


def test_a_broken_image_is_as_broken_on_a_full_disk(serve, disk):
    with serve(disk_full="answer") as client:
        disk.fill()
        answer = client.post("/v1/inspect", content=image(30)[:50], headers=PNG)
        assert (answer.status_code, answer.json()["verdict"]) == (422, "error")


def test_a_batch_says_of_each_image_whether_it_is_stored(serve, disk):
    with serve(disk_full="answer") as client:
        disk.fill()
        files = [("images", ("a.png", image(30), "image/png")) for _ in range(2)]
        told = client.post("/v1/inspect/batch", files=files).json()
        assert told["verdict"] == "ok"
        assert [item["result"]["degraded"] for item in told["items"]] == ["not stored"] * 2


def test_the_candidate_is_not_asked_about_what_is_not_stored(serve, disk, tmp_path):
    with serve(disk_full="answer") as client:
        write_version(tmp_path / "store", 2)
        client.app_state["kizu"].candidates.scan()
        disk.fill()
        shoot(client, 30)
        disk.make_room()
        stored = shoot(client, 31).json()["id"]
    engine = open_database(f"sqlite:///{tmp_path / 'data' / 'kizu.sqlite3'}")
    with Session(engine) as session:
        assert list(session.scalars(select(ShadowResult.inspection_id))) == [stored]
    engine.dispose()


def test_it_starts_on_a_full_disk(serve, disk):
    with serve() as client:
        id = shoot(client, 30).json()["id"]
    for _ in range(3):
        disk.fill()
        with serve(disk_full="answer") as client:
            disk.fill()
            assert shoot(client, 31).json()["degraded"] == "not stored"
            assert client.get(f"/v1/inspections/{id}/image").content == image(30)


def test_old_images_are_removed_from_a_full_disk(serve, disk, tmp_path, monkeypatch):
    with serve() as client:
        noise = np.random.default_rng(0)
        for _ in range(20):
            shoot_noise(client, noise)
    disk.fill()
    removed = threading.Event()
    monkeypatch.setattr(retention, "EVERY_S", 0.05)
    monkeypatch.setattr(retention.Retention, "_count", lambda *counted: removed.set())
    with serve(keep_ok_days=1e-9):
        assert removed.wait(30)
    engine = open_database(f"sqlite:///{tmp_path / 'data' / 'kizu.sqlite3'}")
    with Session(engine) as session:
        left = select(func.count()).where(Inspection.files_removed_at.is_(None))
        assert session.scalar(left) == 0
    engine.dispose()


def shoot_noise(client, noise):
    """An image that takes some room."""
    pixels = noise.integers(0, 60, (48, 64), np.uint8)
    query = {"width": 64, "height": 48, "pixel_format": "Mono8"}
    raw = {"content-type": "application/octet-stream"}
    answer = client.post("/v1/inspect", content=pixels.tobytes(), params=query, headers=raw)
    assert answer.status_code == 200
