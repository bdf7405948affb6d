"""What holds for the API as a whole."""

import re
from concurrent.futures import ThreadPoolExecutor

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
