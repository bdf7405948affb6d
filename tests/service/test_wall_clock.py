"""Rows that a clock dated which was wrong: what is newest, who holds what, who is let in."""

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session

from service.app import create_app
from service.engine import FakeEngine
from service.gate import CSRF_HEADER
from service.settings import Settings
from service.store import accounts, records
from service.store.database import open_database
from service.store.tables import Inspection, LogIn, ReviewItem
from service.wall_clock import BELIEVED_AFTER_S, WallClock
from tests.grey_parts import inspect, write_version

DAY = 24 * 3600.0
PASSWORD = "three odd words"


@pytest.fixture
def settings(tmp_path, database_url):
    write_version(tmp_path / "store")
    return Settings(store=tmp_path / "store", data=tmp_path / "data", database=database_url)


@pytest.fixture
def database(settings):
    settings.data.mkdir()
    engine = open_database(settings.database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def client(settings, database):
    with serving(settings) as client:
        yield client


def serving(settings):
    return TestClient(create_app(settings, open_engine=lambda bundle: FakeEngine()))


def dated(database, id, hours):
    """As if the clock had been that much ahead."""
    at = records.now() + timedelta(hours=hours)
    with Session(database) as session, session.begin():
        session.execute(update(Inspection).where(Inspection.id == id).values(created_at=at))


def test_of_a_part_the_inspection_that_was_entered_last_counts(client, database):
    asked = {"settings": {"product": "box"}, "by": "eva", "reason": "a view"}
    client.post("/v1/recipes/cap/revisions", json=asked).raise_for_status()
    earlier = inspect(client, 50, part_id="7")
    later = inspect(client, 200, part_id="7")
    dated(database, earlier["id"], 24)
    part = client.get("/v1/parts/7", params={"product": "box"}).json()
    assert (part["verdict"], part["views"][0]["inspection"]["id"]) == ("ng", later["id"])


def test_after_a_restart_events_go_on_in_the_order_in_which_they_came(settings, database):
    with serving(settings) as client:
        ids = [inspect(client, grey)["id"] for grey in (50, 60, 70)]
    dated(database, ids[0], 24)
    with serving(settings) as client:
        live = client.app_state["kizu"].live
        assert [event.id for event in live._events] == ids


def test_the_trail_names_what_decided_though_it_seems_younger(client, database):
    lines = {"bundle_version": 1, "review": 90, "ng": 120, "by": "eva", "reason": "a drill"}
    client.post("/v1/recipes/cap/thresholds", json=lines).raise_for_status()
    part = inspect(client, 50)
    dated(database, part["id"], -24)
    trail = client.get(f"/v1/inspections/{part['id']}/trail").json()
    assert trail["thresholds_revision"]["reason"] == "a drill"
    assert trail["promotion"]["bundle_version"] == 1


def test_a_shift_counts_what_it_is_dated(client, database):
    part = inspect(client, 50)
    inspect(client, 60)
    dated(database, part["id"], 24)
    assert client.get("/v1/shift").json()["ok"] == 1


@pytest.mark.parametrize("hours", [-1, 1, 24])
def test_what_somebody_holds_is_not_held_for_long(client, database, hours):
    part = inspect(client, 120)
    for screen, given in (("screen-a", [part["id"]]), ("screen-b", [])):
        claimed = client.post("/v1/review/claims", json={"session": screen}).json()["items"]
        assert [item["inspection"]["id"] for item in claimed] == given
    with Session(database) as session, session.begin():
        until = records.now() + timedelta(hours=hours)
        session.execute(update(ReviewItem).values(claimed_until=until))
    claimed = client.post("/v1/review/claims", json={"session": "screen-b"}).json()["items"]
    assert [item["inspection"]["id"] for item in claimed] == [part["id"]]


@pytest.mark.parametrize(
    ("hours", "known"), [(-1, False), (1, True), (36, True), (24 * 365, False)]
)
def test_no_session_is_for_ever(client, database, hours, known):
    with Session(database) as session, session.begin():
        accounts.add_user(session, "eva", "admin", PASSWORD)
    said = client.post("/v1/session", json={"name": "eva", "password": PASSWORD}).json()
    client.headers[CSRF_HEADER] = said["csrf"]
    with Session(database) as session, session.begin():
        session.execute(update(LogIn).values(ends_at=records.now() + timedelta(hours=hours)))
    assert (client.get("/v1/session").json()["name"] == "eva") == known


class Hands:
    """Of a clock, and how long the computer has run."""

    def __init__(self):
        self.wall, self.even = 1e9, 5.0

    def go_on(self, seconds):
        self.wall += seconds
        self.even += seconds


@pytest.mark.parametrize("jump", [3600.0, DAY, 365 * DAY])
def test_a_clock_that_was_set_forward_is_believed_a_day_later(jump):
    hands = Hands()
    clock = WallClock(lambda: hands.wall, lambda: hands.even)
    hands.go_on(100)
    assert clock.believed() == hands.wall
    hands.wall += jump
    assert clock.believed() is None
    hands.go_on(BELIEVED_AFTER_S - 1)
    assert clock.believed() is None
    hands.go_on(1)
    assert clock.believed() == hands.wall


def test_a_clock_that_was_set_right_again_is_believed_at_once():
    hands = Hands()
    clock = WallClock(lambda: hands.wall, lambda: hands.even)
    hands.wall += DAY
    assert clock.believed() is None
    hands.wall -= DAY
    assert clock.believed() == hands.wall
    hands.wall -= DAY  # what is dated now will seem old once it is set right
    assert clock.believed() == hands.wall
    hands.wall += DAY
    assert clock.believed() is None


def test_a_clock_that_is_led_slowly_is_believed():
    hands = Hands()
    clock = WallClock(lambda: hands.wall, lambda: hands.even)
    for _ in range(100):
        hands.go_on(60)
        hands.wall += 10
        assert clock.believed() == hands.wall
