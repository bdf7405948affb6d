"""Images go by age, verdict and room; rows and labelled parts' images stay."""

import os
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service import retention
from service.app import create_app
from service.engine import FakeEngine
from service.retention import Policy
from service.settings import Settings
from service.store import records
from service.store.database import open_database
from service.store.tables import Inspection, ReviewItem
from tests.grey_parts import PNG, image, write_version

DAYS = 40


@pytest.fixture
def settings(tmp_path, database_url):
    write_version(tmp_path / "store")
    return Settings(store=tmp_path / "store", data=tmp_path / "data", database=database_url)


@pytest.fixture
def client(settings):
    with TestClient(create_app(settings, open_engine=lambda bundle: FakeEngine())) as client:
        yield client


@pytest.fixture
def database(settings, client):
    engine = open_database(settings.database_url)
    yield engine
    engine.dispose()


def shoot(client, grey):
    """A part whose image and heatmap no other grey has."""
    left = grey % 50
    seen = image(grey, spot=(left, 3, left + 4, 9))
    return client.post("/v1/inspect", content=seen, headers=PNG).json()


def age(database, *parts, days=DAYS):
    with Session(database) as session, session.begin():
        ids = [part["id"] for part in parts]
        old = records.now() - timedelta(days=days)
        session.execute(update(Inspection).where(Inspection.id.in_(ids)).values(created_at=old))


def kept(client, *parts):
    """Which of them still have their image and their heatmap."""
    found = []
    for part in parts:
        answers = [client.get(part[what]).status_code for what in ("image", "heatmap")]
        assert answers in ([200, 200], [404, 404])
        assert client.get(f"/v1/inspections/{part['id']}").status_code == 200
        found.append(answers == [200, 200])
    return found


def keeper(client, **policy):
    made = client.app_state["kizu"].retention
    made._policy = Policy(**policy)
    return made


def test_nothing_is_removed_unless_somebody_says_so(client, database):
    part = shoot(client, 50)
    age(database, part, days=4000)
    keeper(client).apply()
    assert kept(client, part) == [True]


def test_passed_parts_go_by_their_age_and_others_by_theirs(client, database):
    ok, review, ng, fresh = (shoot(client, grey) for grey in (50, 125, 200, 60))
    age(database, ok, review, ng)
    keeper(client, ok_days=30).apply()
    assert kept(client, ok, review, ng, fresh) == [False, True, True, True]
    with Session(database) as session:
        assert session.get(ReviewItem, review["id"])
    keeper(client, ok_days=30, other_days=30).apply()
    assert kept(client, ok, review, ng, fresh) == [False, False, False, True]
    with Session(database) as session:  # nobody is asked about what nobody can see
        asked = {item.inspection_id for item in session.scalars(select(ReviewItem))}
        assert asked <= {fresh["id"]}  # which may be one of the few passed parts that are drawn
    assert 'kizu_removed_total{reason="age"} 3.0' in client.get("/metrics").text


def test_labelled_parts_stay(client, database):
    part, other = shoot(client, 200), shoot(client, 210)
    label = {"inspection_id": part["id"], "verdict": "ng", "operator": "eva"}
    assert client.post("/v1/feedback", json=label).status_code == 201
    age(database, part, other)
    keeper(client, ok_days=1, other_days=1).apply()
    assert kept(client, part, other) == [True, False]


def test_a_file_that_another_part_shares_stays_until_it_goes_too(client, database):
    old, young = shoot(client, 50), shoot(client, 50)
    assert old["id"] != young["id"]
    age(database, old)
    keeper(client, ok_days=30).apply()
    assert kept(client, young) == [True]
    age(database, young)
    keeper(client, ok_days=30).apply()
    assert kept(client, old, young) == [False, False]


def test_room_is_made_by_the_oldest_passed_parts_first(client, database, monkeypatch):
    monkeypatch.setattr(retention, "_AT_ONCE", 1)
    ng = shoot(client, 200)
    parts = [shoot(client, grey) for grey in range(40, 46)]
    for number, part in enumerate((ng, *parts)):
        age(database, part, days=DAYS - number)
    blobs = client.app_state["kizu"].blobs
    used = sum(blob.size for blob in blobs.all())
    made = keeper(client, quota_gb=used / 2 / 1e9)
    made.apply()
    left = kept(client, *parts)
    assert left == sorted(left)  # the older ones are gone
    assert 0 < sum(left) < 6
    assert kept(client, ng) == [True]
    assert sum(blob.size for blob in blobs.all()) <= used / 2
    assert made.problem is None


def test_where_only_labelled_parts_are_left_somebody_is_told(client, database):
    part = shoot(client, 200)
    label = {"inspection_id": part["id"], "verdict": "ng", "operator": "eva"}
    client.post("/v1/feedback", json=label)
    keeper(client, free_gb=10**9).apply()
    assert kept(client, part) == [True]
    [problem] = client.get("/health/ready").json()["problems"]
    assert "only labelled parts' images are left" in problem
    assert client.get("/health/ready").status_code == 200  # it still inspects


def test_a_part_that_comes_while_its_twin_goes_keeps_its_image(client, database, monkeypatch):
    """The file is there already when it comes, and would be gone when its row is."""
    old = shoot(client, 50)
    age(database, old)
    made = keeper(client, ok_days=30)
    book = client.app_state["kizu"].ledger
    enter, reached, going_on = book.enter, threading.Event(), threading.Event()

    def slow(*given):
        reached.set()
        assert going_on.wait(30)
        return enter(*given)

    monkeypatch.setattr(book, "enter", slow)
    young = {}
    camera = threading.Thread(target=lambda: young.update(shoot(client, 50)))
    camera.start()
    assert reached.wait(30)
    made.apply()  # its row is not there yet
    going_on.set()
    camera.join()
    assert kept(client, young) == [True]


def test_a_part_that_is_labelled_while_it_goes_keeps_its_image(client, database, monkeypatch):
    part = shoot(client, 200)
    age(database, part)
    made = keeper(client, other_days=30)
    label = {"inspection_id": part["id"], "verdict": "ng", "operator": "eva"}
    find = retention._removable

    def labelled_just_then(*given):
        found = find(*given)
        client.post("/v1/feedback", json=label)
        return found

    monkeypatch.setattr(retention, "_removable", labelled_just_then)
    made.apply()
    assert kept(client, part) == [True]
    assert made.sweep() == 0


def test_nothing_goes_that_a_waiting_result_may_name(client, database, monkeypatch):
    part = shoot(client, 50)
    age(database, part)
    made = keeper(client, ok_days=30)
    monkeypatch.setattr(made, "_ledger", SimpleNamespace(waiting=1))
    made.apply()
    assert kept(client, part) == [True]


def test_what_no_row_names_is_swept_a_day_later(client, database):
    part = shoot(client, 50)
    blobs = client.app_state["kizu"].blobs
    orphan, young = blobs.put(b"of no row"), blobs.put(b"of no row yet")
    broken = blobs.path(orphan).parent / ".writing-x"
    broken.write_bytes(b"half")
    long_ago = time.time() - 2 * 86400
    old = {blobs.path(blob.sha256) for blob in blobs.all()} - {blobs.path(young)}
    for path in (*old, broken):
        os.utime(path, (long_ago, long_ago))
    assert keeper(client).sweep() == 2
    assert blobs.get(orphan) is None
    assert blobs.get(young) is not None
    assert not broken.exists()
    assert kept(client, part) == [True]
    assert 'kizu_removed_total{reason="orphan"} 2.0' in client.get("/metrics").text
