"""What people say of a recipe: where defects count, from which size on, the views of a part."""

import io

import numpy as np
import pytest
from PIL import Image

from models.bundle import Thresholds
from service.decision import decide
from service.engine import FakeEngine
from service.recipe_settings import RecipeSettings
from tests.grey_parts import PNG, image, write_version

LINES = Thresholds(review=1.0, ng=2.0)
LEFT = [(0, 0), (0.5, 0), (0.5, 1), (0, 1)]
RIGHT = [(0.5, 0), (1, 0), (1, 1), (0.5, 1)]


class Spots(FakeEngine):
    """Its score is the brightest value, wherever that is."""

    def run(self, images):
        outputs = super().run(images)
        return type(outputs)(outputs.heatmaps.max(axis=(1, 2)), outputs.heatmaps)


def heatmap(*spots, size=64):
    """(left, top, side, value) each."""
    drawn = np.zeros((size, size), np.float32)
    for left, top, side, value in spots:
        drawn[top : top + side, left : left + side] = value
    return drawn


def decided(score, drawn, **settings):
    return decide(score, drawn, LINES, RecipeSettings(**settings), width=128, height=128)


def test_without_settings_all_counts():
    found = decided(3.0, heatmap((50, 10, 4, 3.0)))
    assert (found.verdict, found.score, len(found.regions)) == ("ng", 3.0, 1)
    assert found.regions[0].area == 64


def test_what_lies_elsewhere_does_not_count():
    drawn = heatmap((50, 10, 4, 3.0), (10, 40, 4, 1.5))
    inside = decided(3.0, drawn, counted=[LEFT])
    assert (inside.verdict, inside.score) == ("review", 1.5)
    assert [region.box.x for region in inside.regions] == [20]
    assert decided(3.0, drawn, ignored=[RIGHT]).verdict == "review"
    assert decided(3.0, drawn, counted=[LEFT], ignored=[LEFT]).verdict == "ok"
    assert decided(3.0, drawn, counted=[RIGHT]).score == 3.0


def test_a_region_smaller_than_one_must_be_does_not_count():
    drawn = heatmap((50, 10, 4, 3.0))  # 64 pixels of the image
    at = {"mm_per_pixel": 0.5}
    assert decided(3.0, drawn, **at).regions[0].area_mm2 == 16.0
    assert decided(3.0, drawn, **at, smallest_mm2=16.0).verdict == "ng"
    small = decided(3.0, drawn, **at, smallest_mm2=16.1)
    assert (small.verdict, small.score, small.regions) == ("ok", 3.0, [])


def test_the_size_is_that_at_the_line_though_the_heatmap_stays_below_it():
    drawn = heatmap((50, 10, 4, 0.8))  # smoothed: the score is higher than its peak
    found = decided(3.0, drawn, mm_per_pixel=1.0, smallest_mm2=60.0)
    assert (found.verdict, found.regions[0].area) == ("ng", 64)


def test_no_number_is_an_error_whatever_counts():
    assert decided(float("nan"), heatmap()).verdict == "error"


@pytest.fixture
def client(make_client, tmp_path):
    store = tmp_path / "grey"
    write_version(store)
    write_version(store, recipe="lid")
    return make_client(lambda bundle: Spots(), store=store)


def revise(client, recipe="cap", **settings):
    asked = {"settings": settings, "by": "eva", "reason": "the clamp is seen"}
    return client.post(f"/v1/recipes/{recipe}/revisions", json=asked)


def inspect(client, grey=40, recipe="cap", spot=None, **query):
    answer = client.post(
        "/v1/inspect",
        content=image(grey, spot=spot),
        headers=PNG,
        params={"recipe": recipe} | query,
    )
    return answer.json()


def test_a_revision_holds_from_the_next_part_on(client):
    spot = (48, 0, 64, 48)
    before = inspect(client, spot=spot)
    assert before["verdict"] == "ng"
    revised = revise(client, counted=[LEFT])
    assert revised.status_code == 201
    after = inspect(client, spot=spot)
    assert (after["verdict"], after["score"]) == ("ok", 40)
    trail = client.get(f"/v1/inspections/{after['id']}/trail").json()
    assert trail["recipe_revision"]["number"] == revised.json()["number"]
    assert trail["recipe_revision"]["reason"] == "the clamp is seen"
    assert client.get(f"/v1/inspections/{before['id']}/trail").json()["recipe_revision"] is None
    revise(client)
    assert inspect(client, spot=spot)["verdict"] == "ng"
    found = client.get("/v1/recipes/cap/revisions").json()
    assert [len(one["settings"]["counted"]) for one in found] == [0, 1]


BAD = {
    "nothing counts": {"counted": [LEFT], "ignored": [LEFT]},
    "a line": {"counted": [LEFT[:2]]},
    "outside of the image": {"counted": [[(0, 0), (2, 0), (1, 1)]]},
    "a size without a scale": {"smallest_mm2": 1.0},
    "no scale": {"mm_per_pixel": 0},
    "an unknown setting": {"colour": "red"},
    "more than all": {"sampled": 1.5},
}


@pytest.mark.parametrize("name", BAD)
def test_settings_that_cannot_be_are_refused(client, name):
    answer = revise(client, **BAD[name])
    assert answer.status_code == 422
    assert client.get("/v1/recipes/cap/revisions").json() == []


def test_a_plc_selects_a_recipe_by_its_number(client):
    assert revise(client, "lid", number=12).status_code == 201
    taken = revise(client, "cap", number=12)
    assert taken.status_code == 422
    assert "'lid'" in taken.json()["detail"]
    answer = client.post("/v1/inspect?number=12", content=image(50), headers=PNG)
    assert answer.json()["recipe_id"] == "lid"
    both = client.post("/v1/inspect?number=12&recipe=cap", content=image(50), headers=PNG)
    assert both.status_code == 422
    unknown = client.post("/v1/inspect?number=13", content=image(50), headers=PNG)
    assert (unknown.status_code, unknown.json()["verdict"]) == (404, "error")


def test_a_part_is_as_good_as_its_worst_view(client):
    for recipe in ("cap", "lid"):
        revise(client, recipe, product="bottle")

    def part(id):
        return client.get(f"/v1/parts/{id}", params={"product": "bottle"}).json()

    assert part("7")["verdict"] == "error"
    inspect(client, 50, part_id="7")
    assert part("7")["verdict"] == "error"  # a view is missing
    inspect(client, 200, recipe="lid", part_id="7")
    assert part("7")["verdict"] == "ng"
    inspect(client, 50, recipe="lid", part_id="7")  # looked at again
    assert part("7")["verdict"] == "ok"
    assert [view["recipe_id"] for view in part("7")["views"]] == ["cap", "lid"]
    assert client.get("/v1/parts/7", params={"product": "jar"}).status_code == 404


def test_how_many_passes_are_shown_is_the_recipes(client):
    revise(client, sampled=1.0)
    inspect(client, 10)
    [item] = client.get("/v1/review").json()["items"]
    assert item["reason"] == "sampled"
    revise(client, sampled=0.0)
    for _ in range(5):
        inspect(client, 10)
    assert client.get("/v1/review").json()["waiting"] == 1


def test_an_image_is_shown_as_light_and_lens_made_it(client):
    id = inspect(client, 200)["id"]
    appearance = client.get(f"/v1/inspections/{id}/trail").json()["appearance"]
    assert appearance == {"brightness": 200, "focus": 0, "saturated": 0}
    buffer = io.BytesIO()
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(buffer, "PNG")
    white = client.post("/v1/inspect?recipe=cap", content=buffer.getvalue(), headers=PNG).json()
    trail = client.get(f"/v1/inspections/{white['id']}/trail").json()
    assert trail["appearance"]["saturated"] == 1
