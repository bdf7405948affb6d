from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from sqlalchemy import create_engine, update
from sqlalchemy.orm import Session

from models.bundle import Thresholds
from models.image import encode_png
from service.review import SAMPLED, interest
from service.store.records import new_id
from service.store.tables import ReviewItem
from tests.service.test_feedback import label, png

JPEG = {"content-type": "image/jpeg"}
LINES = Thresholds(review=1.0, ng=2.0)
FAR = "f" * 32  # an id that no sample draws


def looked_at(score, lines=LINES, id=FAR):
    return interest(id, score, lines.verdict(score), lines)


def session(name="screen-1", **fields):
    return {"session": name.ljust(8, "x"), **fields}


@pytest.fixture
def inspect(client, scratched_part):
    def send(image=scratched_part, **query):
        return client.post("/v1/inspect", content=image, headers=JPEG, params=query).json()

    return send


@pytest.fixture
def all_to_review(client):
    """Thresholds that send every part to review."""
    body = {"bundle_version": 1, "review": -1e9, "ng": 1e9, "by": "eva", "reason": "a drill"}
    assert client.post("/v1/recipes/cap/thresholds", json=body).status_code == 201


def waiting(client, **query):
    return client.get("/v1/review", params=query).json()


def test_what_is_nearest_to_a_line_comes_first():
    on_the_line, between, alarm, near_pass = (looked_at(score) for score in (1.0, 1.5, 9.0, 0.9))
    assert [found.reason for found in (on_the_line, between, alarm, near_pass)] == [
        "near", "review", "ng", "near",
    ]  # fmt: skip
    priorities = [found.priority for found in (on_the_line, between, alarm, near_pass)]
    assert priorities == sorted(priorities, reverse=True)
    assert looked_at(0.0) is None


def test_a_share_of_the_passes_is_shown_among_the_alarms():
    drawn = [found for _ in range(5000) if (found := looked_at(-5.0, id=new_id()))]
    assert {found.reason for found in drawn} == {"sampled"}
    assert 0.5 * SAMPLED < len(drawn) / 5000 < 2 * SAMPLED
    assert min(f.priority for f in drawn) < 1 < 2 < max(f.priority for f in drawn)


def test_equal_lines_have_a_neighbourhood_too():
    assert looked_at(2.0, Thresholds(review=2.0, ng=2.0)).reason == "near"
    assert looked_at(0.0, Thresholds(review=0.0, ng=0.0)).reason == "near"


def test_a_label_takes_an_inspection_out_of_the_queue(client, inspect, all_to_review):
    first, second = inspect(part_id="1"), inspect(part_id="2")
    page = waiting(client)
    assert page["waiting"] == 2
    assert {item["inspection"]["id"] for item in page["items"]} == {first["id"], second["id"]}
    client.post("/v1/feedback", json=label(first["id"], "ok"))
    assert [item["inspection"]["part_id"] for item in waiting(client)["items"]] == ["2"]


def test_simulated_images_do_not_wait(client, inspect, all_to_review):
    inspect(simulated=True)
    assert waiting(client)["waiting"] == 0


def test_pages_follow_each_other(client, inspect, all_to_review):
    ids = {inspect(part_id=str(number))["id"] for number in range(5)}
    seen, after = [], None
    for size in (2, 2, 1):
        page = waiting(client, limit=2, **({"after": after} if after else {}))
        assert len(page["items"]) == size
        seen += [item["inspection"]["id"] for item in page["items"]]
        after = page["next"]
    assert (set(seen), after) == (ids, None)
    assert client.get("/v1/review", params={"after": "gone"}).status_code == 404


def test_two_screens_never_get_the_same(client, inspect, all_to_review):
    ids = {inspect(part_id=str(number))["id"] for number in range(5)}

    def claim(name, **fields):
        found = client.post("/v1/review/claims", json=session(name, **fields)).json()
        return [item["inspection"]["id"] for item in found["items"]]

    one, two = claim("one", count=3), claim("two", count=3)
    assert (len(one), len(two)) == (3, 2)
    assert set(one) | set(two) == ids
    assert claim("one", count=3) == one
    assert claim("three") == []
    assert claim("one", count=3, skip=one[:1]) == one[1:]
    released = client.post("/v1/review/releases", json=session("one", inspections=one[:1]))
    assert released.json() == {"released": 1}
    assert claim("three") == one[:1]


def test_a_claim_ends(client, inspect, all_to_review, database_url):
    id = inspect()["id"]
    client.post("/v1/review/claims", json=session("one"))
    assert client.post("/v1/review/claims", json=session("two")).json()["items"] == []
    engine = create_engine(database_url)
    with Session(engine) as rows, rows.begin():
        rows.execute(
            update(ReviewItem).values(claimed_until=datetime.now(UTC) - timedelta(seconds=1))
        )
    engine.dispose()
    [item] = client.post("/v1/review/claims", json=session("two")).json()["items"]
    assert item["inspection"]["id"] == id


def test_who_does_not_know_leaves_it_to_an_engineer(client, inspect, all_to_review):
    id = inspect()["id"]
    client.post("/v1/feedback", json=label(id, "unsure"))
    assert waiting(client)["waiting"] == 0
    [item] = waiting(client, desk="engineer")["items"]
    assert (item["reason"], item["inspection"]["feedback"]["verdict"]) == ("unsure", "unsure")
    client.post("/v1/feedback", json=label(id, "ng", operator="ken", desk="engineer"))
    assert waiting(client, desk="engineer")["waiting"] == 0


def test_operators_who_disagree_are_settled_by_an_engineer(
    client, inspect, all_to_review, database_url, tmp_path
):
    id = inspect()["id"]
    client.post("/v1/feedback", json=label(id, "ok", operator="aya"))
    client.post("/v1/feedback", json=label(id, "ok", operator="bo"))
    assert waiting(client, desk="engineer")["waiting"] == 0
    client.post("/v1/feedback", json=label(id, "ng", operator="bo"))
    [item] = waiting(client, desk="engineer")["items"]
    assert item["reason"] == "disagreement"
    client.post("/v1/feedback", json=label(id, "ng", operator="ken", desk="engineer"))
    assert waiting(client, desk="engineer")["waiting"] == 0


def test_a_label_that_is_taken_back_was_never_given(client, inspect, all_to_review):
    id = inspect()["id"]
    first = client.post("/v1/feedback", json=label(id, "ok")).json()["id"]
    second = client.post("/v1/feedback", json=label(id, "ng", defect_class="dent")).json()["id"]

    def withdraw(which):
        return client.post("/v1/feedback", json=label(id, "withdrawn", supersedes=which))

    assert withdraw(first).status_code == 409  # not the one that counts
    assert withdraw(second).status_code == 201
    assert client.get(f"/v1/inspections/{id}").json()["feedback"]["id"] == first
    assert waiting(client)["waiting"] == 0
    assert withdraw(first).status_code == 201
    assert client.get(f"/v1/inspections/{id}").json()["feedback"] is None
    assert waiting(client)["waiting"] == 1
    said = client.get(f"/v1/inspections/{id}/feedback").json()
    assert [row["verdict"] for row in said] == ["withdrawn", "withdrawn", "ng", "ok"]
    assert client.post("/v1/feedback", json=label(id, "withdrawn")).status_code == 422


def test_a_label_for_what_was_seen_is_refused_once_it_has_changed(client, inspect):
    id = inspect()["id"]
    assert client.post("/v1/feedback", json=label(id, "ok", supersedes=None)).status_code == 201
    late = client.post("/v1/feedback", json=label(id, "ng", operator="bo", supersedes=None))
    assert late.status_code == 409
    assert "ok by eva" in late.json()["detail"]
    assert client.get(f"/v1/inspections/{id}").json()["feedback"]["verdict"] == "ok"


def test_a_mask_comes_back_as_it_was_drawn(client, inspect):
    result = inspect()
    drawn = np.zeros((result["height"], result["width"]), np.uint8)
    drawn[3:9, 5:6] = drawn[40, 40:60] = 255
    draft = f"/v1/inspections/{result['id']}/draft"
    asked = {"operator": "eva"}
    assert client.get(draft, params=asked).status_code == 204
    kept = client.put(draft, params=asked, content=encode_png(drawn))
    assert kept.status_code == 204
    assert client.get(draft, params=asked).content == encode_png(drawn)
    assert client.get(draft, params={"operator": "bo"}).status_code == 204

    stored = client.post("/v1/feedback", json=label(result["id"], "ng", mask=png(drawn))).json()
    assert client.get(f"/v1/feedback/{stored['id']}/mask").content == encode_png(drawn)
    assert client.get(draft, params=asked).status_code == 204  # it has become the label

    client.put(draft, params=asked, content=encode_png(np.zeros_like(drawn)))
    assert client.delete(draft, params=asked).status_code == 204
    assert client.get(draft, params=asked).status_code == 204


@pytest.mark.parametrize(
    "content", [b"no image", encode_png(np.full((8, 8), 255, np.uint8)), b""], ids=len
)
def test_a_draft_that_fits_nothing_is_refused(client, inspect, content):
    id = inspect()["id"]
    kept = client.put(f"/v1/inspections/{id}/draft", params={"operator": "eva"}, content=content)
    assert kept.status_code == 422
    assert kept.json()["verdict"] == "error"


def test_history_is_searched_by_what_is_known(client, inspect):
    line = {"bundle_version": 1, "review": 1e-4, "ng": 1e-3, "by": "eva", "reason": "all are ng"}
    assert client.post("/v1/recipes/cap/thresholds", json=line).status_code == 201
    a = inspect(part_id="a", lot="17", camera="left")["id"]
    b = inspect(part_id="b", lot="18", camera="left")["id"]
    made = datetime.fromisoformat(client.get(f"/v1/inspections/{b}").json()["creation_time"])
    made = made.astimezone(timezone(timedelta(hours=9))).isoformat()  # asked for from Japan
    client.post("/v1/feedback", json=label(a, "ok"))

    def found(**wanted):
        answer = client.get("/v1/inspections", params=wanted)
        assert answer.status_code == 200, answer.text
        return [item["part_id"] for item in answer.json()["items"]]

    assert found(lot="17") == ["a"]
    assert found(camera="left") == ["b", "a"]
    assert found(camera="left", lot="18") == ["b"]
    assert found(bundle_version=1) == ["b", "a"]
    assert found(bundle_version=2) == []
    assert found(since=made) == ["b"]
    assert found(until=made) == ["a"]
    assert found(label="any") == found(label="ok") == ["a"]
    assert found(label="none") == ["b"]
    assert found(label="overturned") == ["a"]
    assert found(label="missed") == []
    assert client.get("/v1/inspections", params={"since": "yesterday"}).status_code == 422
