"""With PostgreSQL away, inspection goes on; every result gets there, once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from service.store.spool import Spool
from service.store.tables import Inspection, ReviewItem
from tests.cable import cable
from tests.grey_parts import PNG, image, write_version


@pytest.fixture
def plug(postgresql_url):
    """A cable to a database of one's own, and its URL through the cable."""
    url = make_url(postgresql_url)
    with cable(Path(url.query["host"]) / ".s.PGSQL.5432") as made:
        made.url = (
            url.set(host="127.0.0.1", port=made.port, query={})
            .render_as_string(hide_password=False)
        )  # fmt: skip
        made.direct = postgresql_url
        yield made


@pytest.fixture
def settings(plug, tmp_path):
    write_version(tmp_path / "store")
    return Settings(store=tmp_path / "store", data=tmp_path / "data", database=plug.url)


@pytest.fixture
def client(settings):
    with TestClient(create_app(settings, open_engine=lambda bundle: FakeEngine())) as client:
        yield client


@pytest.fixture
def database(plug):
    engine = create_engine(plug.direct)
    yield engine
    engine.dispose()


def shoot(client, grey, key=None):
    headers = PNG | ({"idempotency-key": key} if key else {})
    return client.post("/v1/inspect", content=image(grey), headers=headers)


def ledger(client):
    return client.app_state["kizu"].ledger


def back(client):
    """As the ledger's thread does every second."""
    assert ledger(client)._outage.is_over()
    ledger(client).drain()


def rows(database):
    with Session(database) as session:
        return session.scalar(select(func.count()).select_from(Inspection))


def test_parts_are_inspected_while_the_database_is_away_and_arrive_once(client, plug, database):
    before = shoot(client, 50).json()
    plug.pull()
    answers = [shoot(client, grey, f"part {grey}") for grey in (50, 125, 200)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert [answer.json()["verdict"] for answer in answers] == ["ok", "review", "ng"]
    assert ledger(client).waiting == 3
    [problem] = client.get("/health/ready").json()["problems"]
    assert problem == "The database is away; 3 results wait on this computer's disk."
    assert "kizu_spooled_results 3.0" in client.get("/metrics").text
    assert client.get("/v1/inspections").status_code == 503

    plug.plug()
    back(client)
    assert ledger(client).waiting == 0
    assert client.get("/health/ready").json()["problems"] == []
    for answer in (before, *(one.json() for one in answers)):
        found = client.get(f"/v1/inspections/{answer['id']}").json()
        assert (found["score"], found["verdict"]) == (answer["score"], answer["verdict"])
    assert rows(database) == 4
    with Session(database) as session:  # those near to a line and those rejected wait for review
        assert {item.inspection_id for item in session.scalars(select(ReviewItem))} >= {
            answers[1].json()["id"], answers[2].json()["id"],
        }  # fmt: skip


def test_a_request_that_is_sent_again_meanwhile_has_its_first_result(client, plug, database):
    first = shoot(client, 50, "a").json()
    plug.pull()
    second = shoot(client, 60, "b").json()
    assert shoot(client, 50, "a").json()["id"] == first["id"]
    assert shoot(client, 60, "b").json()["id"] == second["id"]
    assert shoot(client, 70, "b").status_code == 422  # another image
    plug.plug()
    back(client)
    assert shoot(client, 60, "b").json()["id"] == second["id"]
    assert rows(database) == 2


def test_what_waits_outlives_the_process(client, settings, plug, database):
    shoot(client, 50)
    plug.pull()
    id = shoot(client, 60, "b").json()["id"]
    waiting = Spool(settings.data / "spool.sqlite3")
    assert [one.row.id for one in waiting.oldest(10)] == [id]
    assert waiting.by_key("b").id == id
    plug.plug()
    client.__exit__(None, None, None)
    with TestClient(create_app(settings, open_engine=lambda bundle: FakeEngine())) as again:
        ledger(again).drain()
        assert again.get(f"/v1/inspections/{id}").status_code == 200
    client.__enter__()


def test_what_was_brought_before_a_crash_is_not_brought_twice(client, plug, database):
    shoot(client, 50)
    plug.pull()
    shoot(client, 60, "b")
    plug.plug()
    book = ledger(client)
    with book._draining:
        batch = book._spool.oldest(10)
        book._bring(batch)  # and then the process dies, before it can cross them off
    back(client)
    assert (rows(database), book.waiting) == (2, 0)


def test_a_part_that_another_process_inspected_meanwhile_is_not_lost(client, plug, database):
    shoot(client, 50)
    plug.pull()
    id = shoot(client, 60, "b").json()["id"]
    with Session(database) as session, session.begin():
        other = session.scalars(select(Inspection)).one()
        values = {c.key: getattr(other, c.key) for c in Inspection.__table__.columns}
        session.add(Inspection(**values | {"id": "f" * 32, "idempotency_key": "b"}))
    plug.plug()
    back(client)
    assert rows(database) == 3
    found = client.get(f"/v1/inspections/{id}")
    assert found.status_code == 200


def test_a_result_that_the_database_does_not_take_keeps_no_other_back(client, plug, database):
    shoot(client, 50)
    plug.pull()
    shoot(client, 60, "a")
    id = shoot(client, 70, "b").json()["id"]
    book = ledger(client)
    bad, _ = book._spool.oldest(10)
    book._spool.remove([bad.row.id])
    bad.row.width = 2**40
    book._spool.keep(bad)
    plug.plug()
    back(client)
    assert (rows(database), book.waiting) == (2, 1)
    assert client.get(f"/v1/inspections/{id}").status_code == 200
    assert client.get("/health/ready").json()["problems"] == ["1 results wait for the database."]


def test_thresholds_that_were_in_force_last_go_on(client, plug):
    lines = {"bundle_version": 1, "review": 20, "ng": 40, "by": "eva", "reason": "a drill"}
    assert client.post("/v1/recipes/cap/thresholds", json=lines).status_code == 201
    assert shoot(client, 50).json()["verdict"] == "ng"
    plug.pull()
    assert shoot(client, 50).json()["verdict"] == "ng"


def test_a_recipe_that_nobody_asked_for_before_is_refused_meanwhile(client, plug):
    """Nobody can tell by what its scores would be judged."""
    plug.pull()
    answer = shoot(client, 50)
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:kizu:problem:storage-unavailable"


def test_labels_are_refused_meanwhile_and_not_lost(client, plug):
    part = shoot(client, 50).json()
    plug.pull()
    label = {"inspection_id": part["id"], "verdict": "ok", "operator": "eva"}
    answer = client.post("/v1/feedback", json=label)
    assert answer.status_code == 503
    assert answer.json()["retryable"] is True


def test_a_cable_that_is_pulled_again_and_again_loses_nothing(client, plug, database):
    acknowledged = []
    shoot(client, 50)

    def line(number):
        for shot in range(10):
            answer = shoot(client, 50, f"{number}-{shot}")
            if answer.status_code == 200:
                acknowledged.append(answer.json()["id"])

    with ThreadPoolExecutor(4) as lines:
        done = [lines.submit(line, number) for number in range(4)]
        for _ in range(5):
            plug.pull()
            shoot(client, 60)
            plug.plug()
            back(client)
        for one in done:
            one.result()
    back(client)
    assert len(acknowledged) == 40
    with Session(database) as session:
        there = set(session.scalars(select(Inspection.id)))
    assert set(acknowledged) <= there
    assert rows(database) == 40 + 1 + 5
