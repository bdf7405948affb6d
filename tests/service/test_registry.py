import re
import shutil
import threading

import pytest
from sqlalchemy.orm import Session

from models.bundle import FILES, GOLDEN, MODEL, open_bundle, write_bundle
from models.signature import Trust
from service.engine import FakeEngine
from service.registry import Registry
from service.store import records
from service.store.database import open_database
from service.vault import Vault
from tests.waiting import until
from training.engine.export import next_version

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path / "copies", Trust())


def fake_engine(bundle):
    return FakeEngine()


def add_version(store, number):
    """A further version: the same model under a manifest of its own."""
    source = store / "cap" / "1"
    manifest = open_bundle(source).manifest
    target = store / "cap" / f".copying-{number}"
    shutil.copytree(source, target)
    renamed = manifest.model_copy(update={"version": number})
    (target / "manifest.json").write_text(renamed.model_dump_json())
    target.rename(store / "cap" / str(number))


def version(client, part):
    return client.post("/v1/inspect", content=part, headers=JPEG).json()["bundle_version"]


def wait_for(client, number):
    until(lambda: client.get("/v1/recipes/cap").json()["bundle_version"] == number)


def test_a_new_bundle_is_taken_up_without_dropping_a_request(make_client, store, good_part):
    client = make_client(promotion="newest", scan_seconds=0.05)
    stop, statuses, versions = threading.Event(), set(), []

    def post():
        while not stop.is_set():
            answer = client.post("/v1/inspect", content=good_part, headers=JPEG)
            statuses.add(answer.status_code)
            versions.append(answer.json().get("bundle_version"))

    poster = threading.Thread(target=post)
    poster.start()
    add_version(store, next_version(store, "cap"))
    wait_for(client, 2)
    stop.set()
    poster.join(60)
    assert version(client, good_part) == 2
    assert statuses == {200}
    assert versions == sorted(versions)
    records = client.get("/v1/recipes/cap/promotions").json()
    assert [r["bundle_version"] for r in records] == [2, 1]


def test_rolling_back_stays_rolled_back(make_client, store, good_part):
    add_version(store, 2)
    client = make_client(promotion="newest", scan_seconds=0.05)
    assert version(client, good_part) == 2
    asked = {"version": 1, "by": "eva", "reason": "misses scratches"}
    assert client.post("/v1/recipes/cap/promotions", json=asked).status_code == 201
    assert version(client, good_part) == 1
    restarted = make_client(promotion="newest", scan_seconds=0.05)
    assert version(restarted, good_part) == 1
    add_version(store, 3)
    wait_for(restarted, 3)


def test_a_manual_service_waits_for_a_person(make_client, store, good_part):
    client = make_client(promotion="manual", scan_seconds=0.05)
    add_version(store, 2)
    assert version(client, good_part) == 1
    asked = {"version": 2, "by": "eva", "reason": "better"}
    client.post("/v1/recipes/cap/promotions", json=asked)
    assert version(client, good_part) == 2


def test_a_tampered_bundle_is_refused_and_the_old_one_goes_on(make_client, store, good_part):
    client = make_client(promotion="newest", scan_seconds=0.05)
    add_version(store, 2)
    wait_for(client, 2)
    add_broken = store / "cap" / "3"
    shutil.copytree(store / "cap" / "2", store / "cap" / ".copying")
    model = store / "cap" / ".copying" / MODEL
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    (store / "cap" / ".copying").rename(add_broken)
    assert "3" in until(lambda: client.get("/health/ready").json()["problems"])[0]
    assert version(client, good_part) == 2


def test_a_champion_that_was_tampered_with_is_not_served_after_a_restart(
    make_client, store, tmp_path, good_part
):
    make_client()
    [copy] = (tmp_path / "data" / "bundles").glob("*/cap/1")
    for model in (store / "cap" / "1" / MODEL, copy / MODEL):
        data = bytearray(model.read_bytes())
        data[len(data) // 2] ^= 1
        model.write_bytes(data)
    restarted = make_client()
    ready = restarted.get("/health/ready")
    assert ready.status_code == 503
    assert "differs from the hash" in ready.json()["problems"][0]
    answer = restarted.post("/v1/inspect", content=good_part, headers=JPEG)
    assert answer.status_code == 503
    assert answer.json()["verdict"] == "error"
    assert str(store) not in ready.text


def test_a_champion_that_is_broken_in_the_store_decides_from_its_copy(
    make_client, store, good_part
):
    add_version(store, 2)
    make_client(promotion="newest")
    (store / "cap" / "2" / MODEL).write_bytes(b"broken")
    restarted = make_client(promotion="newest")
    assert version(restarted, good_part) == 2
    assert "hash" in str(restarted.get("/health/ready").json()["problems"])
    asked = {"version": 1, "by": "eva", "reason": "2 is broken"}
    assert restarted.post("/v1/recipes/cap/promotions", json=asked).status_code == 201
    assert version(restarted, good_part) == 1


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_bundle_that_vouches_for_nonsense_stops_no_other(make_client, store, good_part, name):
    files = {f: (store / "cap" / "1" / f).read_bytes() for f in FILES}
    manifest = open_bundle(store / "cap" / "1").manifest.model_copy(update={"version": 2})
    write_bundle(store, manifest, {**files, name: b"nonsense"})
    client = make_client()
    assert version(client, good_part) == 1
    assert client.get("/health/ready").json()["problems"] != []
    asked = {"version": 2, "by": "eva", "reason": "why not"}
    answer = client.post("/v1/recipes/cap/promotions", json=asked)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:kizu:problem:bundle-refused"


def test_a_decision_that_came_while_a_bundle_was_loading_stands(store, database_url, vault):
    database = open_database(database_url)
    person = Registry(store, database, fake_engine, vault, promotion="newest")
    person.scan()
    add_version(store, 2)

    def slow(bundle):
        if bundle.manifest.version == 2:
            person.promote("cap", 1, by="eva", reason="stay")
        return fake_engine(bundle)

    service = Registry(store, database, slow, vault, promotion="newest")
    service.scan()
    assert service.champion("cap").bundle.manifest.version == 1
    database.dispose()


def test_two_that_start_at_once_decide_once_and_both_serve(store, database_url, vault):
    database = open_database(database_url)
    other = Registry(store, database, fake_engine, vault, promotion="shadow")

    def slow(bundle):
        other.scan()
        return fake_engine(bundle)

    service = Registry(store, database, slow, vault, promotion="shadow")
    service.scan()
    for one in (service, other):
        assert one.ready("cap").bundle.manifest.version == 1
    with Session(database) as session:
        assert len(records.promotions(session, "cap")) == 1
    database.dispose()


def add_recipe(store, name):
    """The same model for another product."""
    source = open_bundle(store / "cap" / "1")
    files = {file: source.read(file) for file in FILES}
    write_bundle(store, source.manifest.model_copy(update={"recipe": name}), files)


def test_models_above_the_budget_are_let_go_and_come_back_when_asked_for(
    make_client, store, good_part
):
    for name in ("lid", "pin"):
        add_recipe(store, name)
    size = (store / "cap" / "1" / MODEL).stat().st_size
    client = make_client(model_mb=int(2.5 * size / 1e6))
    for recipe in ("cap", "lid", "pin", "cap", "cap", "lid"):
        answer = client.post(f"/v1/inspect?recipe={recipe}", content=good_part, headers=JPEG)
        assert (answer.status_code, answer.json()["recipe_id"]) == (200, recipe)
        loaded = re.search(r"^kizu_models_loaded_bytes (.+)$", client.get("/metrics").text, re.M)
        assert float(loaded[1]) == 2 * size
    assert set(client.get("/health/ready").json()["recipes"]) == {"cap", "lid", "pin"}


def test_what_was_asked_for_least_recently_is_let_go(store, database_url, vault):
    for name in ("lid", "pin"):
        add_recipe(store, name)
    database = open_database(database_url)
    opened = []

    def open_engine(bundle):
        opened.append(bundle.manifest.recipe)
        return FakeEngine()

    size = (store / "cap" / "1" / MODEL).stat().st_size
    registry = Registry(
        store, database, open_engine, vault, promotion="newest", model_bytes=2 * size
    )
    registry.scan()
    assert opened == ["cap", "lid", "pin"]
    assert registry.ready("cap") is None
    assert registry.ready("lid") is not None
    held = registry.load("pin")
    assert registry.load("cap").bundle.manifest.recipe == "cap"
    assert opened == ["cap", "lid", "pin", "cap"]
    assert registry.ready("lid") is None
    assert registry.ready("pin") is held
    database.dispose()


def test_a_copy_that_was_spoilt_while_it_was_not_loaded_is_refused(
    make_client, store, tmp_path, good_part
):
    add_recipe(store, "lid")
    size = (store / "cap" / "1" / MODEL).stat().st_size
    client = make_client(model_mb=int(1.5 * size / 1e6))
    [copy] = (tmp_path / "data" / "bundles").glob("*/cap/1")
    (copy / MODEL).write_bytes(b"broken")
    answer = client.post("/v1/inspect?recipe=cap", content=good_part, headers=JPEG)
    assert (answer.status_code, answer.json()["verdict"]) == (503, "error")
    assert client.post("/v1/inspect?recipe=lid", content=good_part, headers=JPEG).is_success


@pytest.mark.parametrize("asked", [9, 0])
def test_only_versions_of_the_store_can_be_promoted(client, asked):
    body = {"version": asked, "by": "eva", "reason": "why not"}
    assert client.post("/v1/recipes/cap/promotions", json=body).status_code in (404, 422)


def test_an_empty_store_is_live_and_not_ready(make_client, tmp_path, good_part):
    client = make_client(store=tmp_path / "empty")
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 503
    answer = client.post("/v1/inspect", content=good_part, headers=JPEG)
    assert answer.status_code == 503
    assert "kizu-train fit" in answer.json()["detail"]
