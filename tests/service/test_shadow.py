"""Candidates in their champion's shadow: asked about every part, and deciding nothing."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from sqlalchemy.orm import Session

from models.bundle import open_bundle
from service.candidates import Candidates
from service.engine import FakeEngine, Outputs
from service.errors import EngineFailure
from service.store import records
from service.store.tables import Candidacy
from tests.grey_parts import PNG, image, write_version
from tests.service.test_registry import add_version, wait_for
from tests.waiting import until


class Brighter(FakeEngine):
    """Takes every part for brighter by so much."""

    def __init__(self, by):
        super().__init__()
        self._by = by

    def run(self, images):
        scores, heatmaps = vars(super().run(images)).values()
        return Outputs(scores + self._by, heatmaps + self._by)


class Broken(FakeEngine):
    def run(self, images):
        raise EngineFailure("It fell off.")


def engines(**by_version):
    return lambda bundle: by_version.get(f"v{bundle.manifest.version}", FakeEngine())


@pytest.fixture
def start(make_client, tmp_path):
    """A service with grey parts; keywords are settings."""
    store = tmp_path / "grey"
    write_version(store)

    def make(open_engine=lambda bundle: FakeEngine(), **settings):
        client = make_client(open_engine, store=store, **{"scan_seconds": 0.05} | settings)
        client.store = store
        return client

    return make


def inspect(client, grey):
    return client.post("/v1/inspect", content=image(grey), headers=PNG).json()


def compared(client, images):
    def look():
        answer = client.get("/v1/recipes/cap/shadow")
        return answer.status_code == 200 and answer.json()["images"] == images and answer.json()

    return until(look)


def roles(client):
    found = client.get("/v1/recipes/cap/bundles").json()
    return {bundle["version"]: bundle["role"] for bundle in found}


def test_a_new_version_runs_in_the_shadow_and_decides_nothing(start):
    client = start(engines(v2=Brighter(60)))
    assert client.get("/v1/recipes/cap/shadow").status_code == 404
    write_version(client.store, 2)
    until(lambda: roles(client) == {1: "champion", 2: "candidate"})
    for grey in (10, 50, 120):
        assert inspect(client, grey)["bundle_version"] == 1
    found = compared(client, 3)
    assert (found["champion_version"], found["candidate_version"]) == (1, 2)
    assert found["agreeing"] == 1
    counts = {(c["champion"], c["candidate"]): c["images"] for c in found["counts"]}
    assert counts == {("ok", "ok"): 1, ("ok", "review"): 1, ("review", "ng"): 1}
    assert [d["candidate_verdict"] for d in found["differences"]] == ["ng", "review"]
    trail = client.get(f"/v1/inspections/{found['differences'][1]['inspection']['id']}/trail")
    [candidate] = trail.json()["candidates"]
    assert (candidate["bundle_version"], candidate["score"]) == (2, 110)


def test_where_the_two_disagree_a_person_is_asked_first(start):
    client = start(engines(v2=Brighter(60)))
    write_version(client.store, 2)
    until(lambda: roles(client) == {1: "champion", 2: "candidate"})
    inspect(client, 125)
    contested = inspect(client, 50)["id"]
    compared(client, 2)
    first, *_ = client.get("/v1/review").json()["items"]
    assert first["reason"] == "candidate"
    label = {"inspection_id": contested, "verdict": "ok", "operator": "eva"}
    client.post("/v1/feedback", json=label)
    assert contested not in [
        i["inspection"]["id"] for i in client.get("/v1/review").json()["items"]
    ]


def test_a_promoted_candidate_decides_at_once_and_has_no_shadow(start):
    loads = []

    def open_engine(bundle):
        loads.append(bundle.manifest.version)
        return FakeEngine()

    client = start(open_engine)
    write_version(client.store, 2)
    until(lambda: roles(client) == {1: "champion", 2: "candidate"})
    asked = {"version": 2, "by": "eva", "reason": "better"}
    assert client.post("/v1/recipes/cap/promotions", json=asked).status_code == 201
    assert inspect(client, 50)["bundle_version"] == 2
    assert roles(client) == {1: None, 2: "champion"}
    assert loads == [1, 2]  # it was loaded already
    assert client.get("/v1/recipes/cap/shadow").status_code == 404


def test_a_person_nominates_and_ends_it(start):
    client = start(promotion="manual")
    write_version(client.store, 2)

    def nominate(version):
        asked = {"version": version, "by": "eva", "reason": "a try"}
        return client.post("/v1/recipes/cap/candidates", json=asked)

    assert nominate(2).status_code == 201
    assert roles(client) == {1: "champion", 2: "candidate"}
    assert nominate(1).status_code == 422
    assert nominate(7).status_code == 404
    assert nominate(None).status_code == 201
    assert roles(client) == {1: "champion", 2: None}
    records = client.get("/v1/recipes/cap/candidates").json()
    assert [record["bundle_version"] for record in records] == [None, 2]


@pytest.mark.parametrize("promotion", ["manual", "shadow"])
def test_who_ends_a_shadow_while_one_is_loading_has_the_last_word(start, promotion):
    """By `manual` the model that is loading was nominated, by `shadow` it is new in the store."""
    loading, loaded = threading.Event(), threading.Event()

    def open_engine(bundle):
        if bundle.manifest.version == 2:
            loading.set()
            assert loaded.wait(30)
        return FakeEngine()

    client = start(open_engine, promotion=promotion, scan_seconds=3600)
    write_version(client.store, 2)
    candidates = client.app_state["kizu"].candidates
    if promotion == "manual":
        with Session(client.app_state["kizu"].database) as session, session.begin():
            digest = open_bundle(client.store / "cap" / "2").digest
            session.add(
                Candidacy(
                    created_at=records.now(), recipe="cap", bundle_version=2, bundle_digest=digest,
                    by="ben", reason="at another service",
                )
            )  # fmt: skip
    with ThreadPoolExecutor(2) as threads:
        scan = threads.submit(candidates.scan)
        assert loading.wait(30)
        end = threads.submit(candidates.nominate, "cap", None, by="eva", reason="too slow")
        wait([end], timeout=0.5)  # it may end only after the scan
        loaded.set()
        scan.result(30)
        end.result(30)
    assert roles(client) == {1: "champion", 2: None}
    assert client.get("/v1/recipes/cap/candidates").json()[0]["by"] == "eva"


def test_a_shadow_that_was_ended_elsewhere_while_one_was_loading_stays_ended(start):
    def open_engine(bundle):
        if bundle.manifest.version == 2:
            state = client.app_state["kizu"]
            elsewhere = Candidates(state.registry, state.database, promotion="shadow")
            elsewhere.nominate("cap", None, by="eva", reason="none")
        return FakeEngine()

    client = start(open_engine, scan_seconds=3600)
    write_version(client.store, 2)
    client.app_state["kizu"].candidates.scan()
    assert roles(client) == {1: "champion", 2: None}


def test_who_ended_a_shadow_is_not_overruled(start):
    client = start()
    write_version(client.store, 2)
    until(lambda: roles(client)[2] == "candidate")
    asked = {"version": None, "by": "eva", "reason": "it takes too much"}
    client.post("/v1/recipes/cap/candidates", json=asked)
    restarted = start()
    assert roles(restarted) == {1: "champion", 2: None}


def test_a_candidate_stays_one_after_a_restart(start):
    client = start()
    write_version(client.store, 2)
    until(lambda: roles(client)[2] == "candidate")
    assert roles(start()) == {1: "champion", 2: "candidate"}


def test_a_candidate_that_fails_harms_nobody(start):
    client = start(engines(v2=Broken()))
    write_version(client.store, 2)
    until(lambda: roles(client)[2] == "candidate")
    assert inspect(client, 50)["verdict"] == "ok"
    failed = 'kizu_shadow_images_total{outcome="failed",recipe="cap"} 1.0'
    until(lambda: failed in client.get("/metrics").text)
    assert client.get("/health/ready").status_code == 200


def test_a_real_candidate_sees_what_its_champion_sees(make_client, store, good_part):
    client = make_client(scan_seconds=0.05)
    add_version(store, 2)
    until(lambda: roles(client).get(2) == "candidate")
    answered = client.post("/v1/inspect", content=good_part, headers={"content-type": "image/jpeg"})
    assert answered.json()["bundle_version"] == 1
    assert compared(client, 1)["agreeing"] == 1
    with_newest = make_client(promotion="newest", scan_seconds=0.05)
    add_version(store, 3)
    wait_for(with_newest, 3)


def test_reports_and_what_is_refused_are_shown(start):
    client = start()
    broken = write_version(client.store, 2)
    (broken / "model.onnx").write_bytes(b"something else")
    found = until(lambda: [b for b in client.get("/v1/recipes/cap/bundles").json() if b["problem"]])
    assert "differs from the hash" in found[0]["problem"]
    report = client.get("/v1/recipes/cap/bundles/1/report")
    assert "A report" in report.text
    assert client.get("/v1/recipes/cap/bundles/9/report").status_code == 404
