"""What two do at the same moment comes out as if one had come first."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from models.image import encode_png
from models.signature import Trust
from service.app import create_app
from service.engine import FakeEngine
from service.registry import Registry
from service.settings import Settings
from service.store import accounts, records, review_queue, trainings
from service.store.tables import Feedback
from service.vault import Vault
from tests.grey_parts import HEIGHT, PNG, WIDTH, inspect, write_version

MANY = 8
BLOCKED_S = 0.3  # so long what should wait is given to show that it does not


@pytest.fixture
def store(tmp_path):
    for recipe in ("cap", "lid"):
        write_version(tmp_path / "store", recipe=recipe)
    return tmp_path / "store"


@pytest.fixture
def client(store, tmp_path, database_url):
    settings = Settings(
        store=store, data=tmp_path / "data", database=database_url, scan_seconds=3600
    )
    with TestClient(create_app(settings, open_engine=lambda bundle: FakeEngine())) as client:
        yield client


@pytest.fixture
def database(client):
    return client.app_state["kizu"].database


@pytest.fixture
def part(client):
    return inspect(client, 50, recipe="cap")["id"]


def at_once(act):
    """What each of many got who did it together."""
    together = threading.Barrier(MANY, timeout=30)

    def one(number):
        together.wait()
        return act(number)

    with ThreadPoolExecutor(MANY) as threads:
        return list(threads.map(one, range(MANY)))


@contextmanager
def meanwhile(act):
    """It begins now, and ends once what is done inside is committed."""
    with ThreadPoolExecutor(1) as thread:
        begun = thread.submit(act)
        wait([begun], timeout=BLOCKED_S)
        yield
        begun.result(30)


def label(client, part):
    said = {"inspection_id": part, "verdict": "ng", "operator": "eva"}
    client.post("/v1/feedback", json=said).raise_for_status()


def ask_training(client):
    asked = {"by": "eva", "reason": "dents are missed"}
    return client.post("/v1/recipes/cap/trainings", json=asked)


def test_a_mask_that_is_drawn_is_kept_by_some_and_removed_by_others(client, part):
    marked = encode_png(np.full((HEIGHT, WIDTH), 255, np.uint8))
    draft = f"/v1/inspections/{part}/draft?operator=eva"

    def act(number):
        if number % 4 == 0:
            return client.delete(draft).status_code
        return client.put(draft, content=marked, headers=PNG).status_code

    for _ in range(5):
        assert set(at_once(act)) == {204}
    client.put(draft, content=marked, headers=PNG)
    assert client.get(draft).content == marked


def test_of_many_who_ask_for_a_training_one_gets_it(client, part):
    label(client, part)
    statuses = at_once(lambda _: ask_training(client).status_code)
    assert sorted(statuses) == [201, *[422] * (MANY - 1)]


def test_a_training_that_a_worker_takes_just_now_is_not_cancelled_behind_its_back(
    client, database, part
):
    label(client, part)
    id = ask_training(client).json()["id"]

    def cancel():
        client.post(f"/v1/trainings/{id}/cancel", json={"by": "ben"}).raise_for_status()

    with Session(database) as session:
        assert trainings.take(session, "worker").id == id
        with meanwhile(cancel):
            session.commit()
    with Session(database) as session:
        found = trainings.find(session, id)
        assert (found.state, found.cancelled_by) == ("running", "ben")  # the worker will end it


def test_a_number_selects_one_recipe(client):
    def revise(number):
        recipe = ("cap", "lid")[number % 2]
        asked = {"settings": {"number": 12}, "by": "eva", "reason": "the PLC says 12"}
        answer = client.post(f"/v1/recipes/{recipe}/revisions", json=asked)
        return recipe, answer.status_code

    got = at_once(revise)
    assert {status for _, status in got} == {201, 422}
    assert len({recipe for recipe, status in got if status == 201}) == 1


def test_a_part_that_is_labelled_just_now_is_not_put_before_people_again(client, database, part):
    def contest():
        with Session(database) as session, session.begin():
            review_queue.contest(session, records.inspection(session, part))

    with Session(database) as session:
        row = records.inspection(session, part)
        records.hold(session, row)
        said = Feedback(
            id=records.new_id(), created_at=records.now(), inspection_id=part, verdict="ok",
            boxes=[], operator="eva", desk="operator", comment="", request_sha256="",
        )  # fmt: skip
        session.add(said)
        session.flush()
        review_queue.settle(session, row, said)
        with meanwhile(contest):
            session.commit()
    assert client.get("/v1/review").json()["waiting"] == 0


@pytest.mark.parametrize("change", ["password", "role", "remove"])
def test_who_logs_in_while_they_are_changed_comes_in_as_what_they_are_now_or_not(
    client, database, change
):
    said = {"name": "eva", "password": "three odd words"}
    with Session(database) as session, session.begin():
        accounts.add_user(session, "eva", "admin", said["password"])
    answers = []
    with Session(database) as session:
        if change == "remove":
            accounts.remove_user(session, "eva")
        elif change == "role":
            accounts.change_user(session, "eva", role="operator")
        else:
            accounts.change_user(session, "eva", password="another three")
        session.flush()
        with meanwhile(lambda: answers.append(client.post("/v1/session", json=said))):
            session.commit()
    [answer] = answers
    # A log-in that was slow came after the change.
    assert answer.status_code == 401 or (change, answer.json()["role"]) == ("role", "operator")


def test_a_version_that_two_services_find_is_promoted_once(client, store, database, tmp_path):
    together = threading.Barrier(2, timeout=30)

    def loads(bundle):
        if bundle.manifest.version > 1:
            together.wait()
        return FakeEngine()

    vault = Vault(tmp_path / "copies", Trust())
    services = [Registry(store, database, loads, vault, promotion="newest") for _ in range(2)]
    for version in range(2, 7):
        write_version(store, version)
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(Registry.scan, services))
        assert {one.champion("cap").bundle.manifest.version for one in services} == {version}
    with Session(database) as session:
        promoted = [row.bundle_version for row in records.promotions(session, "cap")]
    assert promoted == [6, 5, 4, 3, 2, 1]
