"""What holds for the API as a whole."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

JPEG = {"content-type": "image/jpeg"}


def test_the_documentation_needs_no_network(client):
    page = client.get("/docs").text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert addresses
    assert all(address.startswith("/") for address in addresses)
    assert all(client.get(address).status_code == 200 for address in addresses)


def test_operation_ids_are_stable_and_unique(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    ids = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids))
    assert {"inspect", "inspect_batch", "give_feedback", "get_inspection", "promote"} <= set(ids)
    assert "image/jpeg" in document["paths"]["/v1/inspect"]["post"]["requestBody"]["content"]


def test_requests_carry_an_id_back(client, good_part):
    given = client.get("/health/live", headers={"x-request-id": "line-7"})
    made = client.get("/health/live", headers={"x-request-id": "bad id\t"})
    assert given.headers["x-request-id"] == "line-7"
    assert re.fullmatch(r"[0-9a-f]{32}", made.headers["x-request-id"])
    timed = client.post("/v1/inspect", content=good_part, headers=JPEG)
    assert re.match(
        r"decode;dur=[\d.]+, queue;dur=[\d.]+, device;dur=", timed.headers["server-timing"]
    )


def test_many_cameras_at_once_are_all_answered_and_stored(client, good_part):
    def shoot(number):
        headers = {**JPEG, "idempotency-key": f"part-{number}"}
        answer = client.post("/v1/inspect", content=good_part, headers=headers)
        label = {"inspection_id": answer.json()["id"], "verdict": "ok", "operator": "eva"}
        return answer.status_code, client.post("/v1/feedback", json=label).status_code

    with ThreadPoolExecutor(12) as cameras:
        statuses = set(cameras.map(shoot, range(60)))
    assert statuses == {(200, 201)}
    first = client.get("/v1/inspections?limit=100").json()["items"]
    assert len(first) == 60
    assert all(item["feedback"]["verdict"] == "ok" for item in first)


def test_methods_that_are_not_there_are_problems(client):
    answer = client.delete("/v1/inspections/x")
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    "address",
    [
        "inspections?bundle_version=3000000000", "inspections?bundle_version=99999999999999999999",
        "inspections?since=0001-01-01T00:00:00%2B14:00", "export?until=9999-12-31T23:00:00-14:00",
        "audit?before=99999999999999999999", "feed?after=99999999999999999999", "trainings/%00",
        "feedback/%00/mask", "inspections/%00/draft?operator=eva",
    ],
)  # fmt: skip
def test_what_no_database_holds_is_refused(client, address):
    assert client.get(f"/v1/{address}").status_code in (404, 422)


@pytest.mark.parametrize(
    ("what", "asked"),
    [
        ("revisions", {"settings": {"mm_per_pixel": 1e-200, "smallest_mm2": 1.0}}),
        ("revisions", {"settings": {"mm_per_pixel": 1e300, "smallest_mm2": 1.0}}),
        ("thresholds", {"bundle_version": 1, "review": -1e308, "ng": 1e308}),
    ],
)  # fmt: skip
def test_no_number_breaks_what_follows(client, good_part, what, asked):
    asked = asked | {"by": "eva", "reason": "a slip"}
    assert client.post(f"/v1/recipes/cap/{what}", json=asked).status_code == 422
    assert client.post("/v1/inspect", content=good_part, headers=JPEG).status_code == 200
    assert client.get("/v1/recipes/cap/scores").status_code == 200


def test_a_body_that_is_no_text_is_a_problem_like_any_other(client):
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/feedback", content=b"\xff", headers=headers)
    assert answer.status_code == 422
    assert answer.json()["verdict"] == "error"
