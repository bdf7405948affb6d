"""Drift: light that fades and lenses that move are seen before they are noticed."""

import pytest

from service.cameras import MOST
from service.drift import LEAST, Drift
from service.engine import FakeEngine
from service.store.tables import Inspection
from tests.grey_parts import PNG, image, write_version


@pytest.fixture
def client(make_client, tmp_path):
    """Good parts were between 40 and 60 grey."""
    write_version(tmp_path / "grey")
    return make_client(lambda bundle: FakeEngine(), store=tmp_path / "grey")


def inspect(client, grey, **query):
    for _ in range(LEAST):
        client.post("/v1/inspect", content=image(grey), headers=PNG, params=query)


def states(client):
    return {
        report["camera"]: {trend["measure"]: trend["state"] for trend in report["trends"]}
        for report in client.get("/v1/drift").json()
    }


def test_each_camera_is_compared_with_what_training_saw(client):
    inspect(client, 50, camera="left")
    inspect(client, 70, camera="right")
    found = states(client)
    assert found["left"] == dict.fromkeys(("score", "brightness", "focus", "saturated"), "steady")
    assert found["right"]["brightness"] == "drifting"
    assert found["right"]["score"] == "steady"
    reports = {one["camera"]: one for one in client.get("/v1/drift").json()}
    assert (reports["left"]["state"], reports["right"]["state"]) == ("steady", "drifting")
    assert reports["right"]["images"] == LEAST
    outside = 'kizu_drift_outside_ratio{camera="right",measure="brightness",recipe="cap"} 1.0'
    assert outside in client.get("/metrics").text


def test_scores_that_rise_are_said(client):
    inspect(client, 98)
    assert states(client)[""]["score"] == "drifting"


def test_few_images_say_nothing(client):
    client.post("/v1/inspect", content=image(250), headers=PNG)
    assert set(states(client)[""].values()) == {"unknown"}


def test_a_sender_that_names_ever_new_cameras_fills_no_memory():
    drift = Drift()
    for number in range(MOST + 50):
        drift.add(
            Inspection(
                recipe="cap", camera=str(number), simulated=False, bundle_digest="1", score=1.0,
                brightness=1.0, focus=1.0, saturated=0.0,
            )
        )  # fmt: skip
    assert len(drift._windows) == MOST + 1


def test_drills_do_not_count(client):
    inspect(client, 250, simulated=True)
    assert states(client) == {}


def test_it_is_known_again_after_a_restart(client, make_client, tmp_path):
    inspect(client, 70)
    again = make_client(lambda bundle: FakeEngine(), store=tmp_path / "grey")
    assert states(again)[""]["brightness"] == "drifting"


def test_a_bundle_that_does_not_say_is_unknown(make_client, tmp_path):
    write_version(tmp_path / "grey", appearance=None)
    client = make_client(lambda bundle: FakeEngine(), store=tmp_path / "grey")
    inspect(client, 50)
    assert states(client)[""] == {
        "score": "steady", "brightness": "unknown", "focus": "unknown", "saturated": "unknown",
    }  # fmt: skip
