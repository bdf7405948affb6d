"""What thresholds would do, by the parts that were labelled, and how sure that is."""

import pytest
from scipy.stats import binomtest

from service.consequences import Scores, rate
from service.engine import FakeEngine
from tests.grey_parts import PNG, image, write_version


@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 10), (10, 10), (1, 1), (70, 1000)])
def test_intervals_are_wilsons(count, total):
    found = rate(count, total)
    expected = binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_of_nothing_nothing_is_known():
    assert (rate(0, 0).low, rate(0, 0).high) == (0, 1)


def test_a_histogram_counts_every_part_once():
    histogram = Scores([1, 2, 3], [9], [1.5] * 5).histogram(4, 6)
    assert (sum(histogram.ok), sum(histogram.ng), sum(histogram.unlabelled)) == (3, 1, 5)
    assert (histogram.edges[0], histogram.edges[-1]) == (1, 9)
    flat = Scores([2, 2], [], []).histogram(2, 2)
    assert sum(flat.ok) == 2


@pytest.fixture
def client(make_client, tmp_path):
    """Parts of 50 to 90 are labelled ok, those of 120 and 130 ng, and 20 is not labelled."""
    write_version(tmp_path / "grey")
    client = make_client(lambda bundle: FakeEngine(), store=tmp_path / "grey")
    for grey in (50, 60, 70, 90, 120, 130, 20):
        id = client.post("/v1/inspect", content=image(grey), headers=PNG).json()["id"]
        if grey == 20:
            continue
        verdict = "ok" if grey < 100 else "ng"
        label = {"inspection_id": id, "verdict": verdict, "operator": "eva"}
        client.post("/v1/feedback", json=label)
    client.post("/v1/inspect?simulated=true", content=image(250), headers=PNG)
    return client


def foresee(client, review, ng):
    path = "/v1/recipes/cap/thresholds/consequences"
    return client.get(path, params={"review": review, "ng": ng})


def test_lines_are_tried_before_they_are_drawn(client):
    found = foresee(client, 65, 85).json()
    assert (found["reviewed"]["count"], found["rejected"]["count"]) == (1, 1)
    assert (found["rejected"]["total"], found["escaped"]["count"]) == (4, 0)
    high = foresee(client, 125, 125).json()
    assert (high["rejected"]["count"], high["escaped"]["count"], high["escaped"]["total"]) == (
        0,
        1,
        2,
    )
    assert high["unlabelled_ok"] == 1
    assert client.get("/v1/recipes/cap/thresholds").json() == []
    assert foresee(client, 2, 1).status_code == 422


def test_scores_are_counted_by_label(client):
    found = client.get("/v1/recipes/cap/scores").json()
    assert (sum(found["ok"]), sum(found["ng"]), sum(found["unlabelled"])) == (4, 2, 1)
    assert found["thresholds"] == found["trained"] == {"review": 100, "ng": 150}


def test_scores_of_another_bundle_do_not_count(client, tmp_path):
    write_version(tmp_path / "grey", 2)
    asked = {"version": 2, "by": "eva", "reason": "new"}
    assert client.post("/v1/recipes/cap/promotions", json=asked).status_code == 201
    found = client.get("/v1/recipes/cap/scores").json()
    assert (sum(found["ok"]), found["bundle_version"]) == (0, 2)
    assert foresee(client, 1, 2).json()["rejected"]["total"] == 0
