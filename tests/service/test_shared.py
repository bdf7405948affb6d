"""Several services with one database and one object store: to cameras and people they are one."""

from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session

from models.bundle import open_bundle
from service import live, neighbours
from service.app import create_app
from service.engine import FakeEngine
from service.retention import Policy
from service.settings import Settings, SettingsError
from service.store import object_blobs, records
from service.store.mirror import Mirror
from service.store.objects import ObjectStore
from service.store.tables import Inspection
from tests.grey_parts import PNG, image, inspect, write_version
from tests.waiting import until


@pytest.fixture
def made(bucket, tmp_path):
    """Where bundles are trained; the first is sent."""
    mirror = Mirror(ObjectStore(f"{bucket.address}/bundles"), tmp_path / "made")
    mirror.send(open_bundle(write_version(tmp_path / "made")))
    return mirror


@pytest.fixture
def start(made, bucket, postgresql_url, tmp_path, monkeypatch):
    """Start a service that has nothing but its own empty disk."""
    monkeypatch.setattr(neighbours, "_EVERY_S", 0.05)
    monkeypatch.setattr(object_blobs, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(object_blobs, "_ASK_EVERY_S", 0.05)
    with ExitStack() as running:

        def start(name):
            settings = Settings(
                store=tmp_path / name / "store", data=tmp_path / name / "data",
                database=postgresql_url, blobs=f"{bucket.address}/images",
                bundles=f"{bucket.address}/bundles", promotion="manual",
            )  # fmt: skip
            app = create_app(settings, open_engine=lambda bundle: FakeEngine())
            return running.enter_context(TestClient(app))

        yield start


@pytest.fixture
def two(start):
    return start("first"), start("second")


def state(client):
    return client.app_state["kizu"]


def champion(client):
    return state(client).registry.champion("cap").bundle.manifest.version


def test_what_one_inspects_the_others_show_and_label(two):
    first, second = two
    sent = PNG | {"idempotency-key": "part-1"}
    part = first.post("/v1/inspect", content=image(200), headers=sent).json()
    assert part["verdict"] == "ng"
    assert second.get(part["image"]).content == image(200)
    assert second.get(part["heatmap"]).content == first.get(part["heatmap"]).content
    again = second.post("/v1/inspect", content=image(200), headers=sent).json()
    assert again["id"] == part["id"]
    label = {
        "inspection_id": part["id"], "verdict": "ng", "operator": "eva",
        "boxes": [{"x": 2, "y": 2, "width": 9, "height": 9}],
    }  # fmt: skip
    assert second.post("/v1/feedback", json=label).status_code == 201
    (seen,) = first.get(f"/v1/inspections/{part['id']}/feedback").json()
    assert seen["boxes"] == label["boxes"]


def test_a_version_that_is_promoted_at_one_decides_at_all(two, made, tmp_path):
    first, second = two
    assert [champion(one) for one in two] == [1, 1]
    made.send(open_bundle(write_version(tmp_path / "made", 2)))
    state(first).mirror.fetch()
    state(first).registry.promote("cap", 2, by="eva", reason="better")
    state(second).registry.scan()  # before it has the bundle
    assert [champion(one) for one in two] == [2, 1]
    state(second).mirror.fetch()
    state(second).registry.scan()
    assert champion(second) == 2
    assert inspect(second, 50)["bundle_version"] == 2


def test_who_watches_one_sees_what_all_inspect_once(two):
    parts = [inspect(two[number % 2], 40 + number)["id"] for number in range(6)]
    until(lambda: all(set(parts) <= state(one).live.ids for one in two))
    for one in two:
        (camera,) = state(one).drift.report(state(one).registry.manifests)
        assert camera.images >= 6


def test_what_is_forgotten_as_an_event_is_not_told_anew(two, monkeypatch):
    monkeypatch.setattr(live, "KEPT", 5)
    monkeypatch.setattr(neighbours, "_AGAIN", 2)
    first, second = two
    for number in range(12):
        last = inspect(first, 40 + number)["id"]
        until(lambda last=last: last in state(second).live.ids)
    looked = []
    look = state(first).neighbours._read
    monkeypatch.setattr(
        state(first).neighbours, "_read", lambda known: looked.append(known) or look(known)
    )
    until(lambda: len(looked) > 2)
    assert [state(one).live._total for one in two] == [12, 12]


def test_one_alone_removes_and_another_after_it(two):
    first, _ = two
    part = inspect(first, 50)
    with Session(state(first).database) as session, session.begin():
        old = records.now().replace(year=2020)
        session.execute(update(Inspection).values(created_at=old))
    turns = [state(one).retention._turn for one in two]
    assert [turn.is_mine() for turn in turns] == [True, False]
    assert [turn.is_mine() for turn in turns] == [True, False]
    state(first).retention._policy = Policy(ok_days=30)
    state(first).retention.apply()
    assert [one.get(part["image"]).status_code for one in two] == [404, 404]
    turns[0].close()
    until(turns[1].is_mine)  # once the server has noticed
    assert not turns[0].is_mine()


def test_two_services_never_have_one_directory(start):
    first = start("first")
    with pytest.raises(SettingsError, match="is another service's, which runs"):
        start("first")
    assert inspect(first, 50)["verdict"] == "ok"


def test_while_the_object_store_is_away_parts_are_inspected_and_nothing_is_removed(two, bucket):
    first, second = two
    old = inspect(first, 50)
    bucket.cable.pull()
    part = inspect(first, 200)
    assert part["verdict"] == "ng"
    assert first.get(part["image"]).content == image(200)
    refused = second.get(part["image"])
    assert refused.status_code == 503
    assert refused.json()["type"] == "urn:kizu:problem:storage-unavailable"
    # Where bundles were looked for meanwhile, that they cannot be exchanged is a problem, too.
    problems = first.get("/health/ready").json()["problems"]
    assert sum("files wait" in one for one in problems) == 1
    assert "kizu_spooled_files 2.0" in first.get("/metrics").text
    keeper = state(first).retention
    keeper._policy = Policy(quota_gb=1e-9)
    keeper.apply()
    bucket.cable.plug()
    until(lambda: not state(first).blobs.waiting and not state(second).blobs.problem)
    assert second.get(part["image"]).content == image(200)
    assert second.get(old["image"]).content == image(50)
    # Bundles that were looked for meanwhile are looked for again after a while.
    until(lambda: first.get("/health/ready").json()["problems"] == [])


def test_what_no_row_names_is_swept_after_a_month(two, monkeypatch):
    first, _ = two
    part = inspect(first, 50)
    blobs, keeper = state(first).blobs, state(first).retention
    orphan = blobs.put(b"of a request that was given up")
    now = keeper._clock.believed()
    monkeypatch.setattr(keeper, "_clock", SimpleNamespace(believed=lambda: now + 31 * 86400))
    assert keeper.sweep() == 1
    assert blobs.get(orphan) is None
    assert first.get(part["image"]).status_code == 200
