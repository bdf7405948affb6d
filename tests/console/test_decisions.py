"""Thresholds, models, recipes: tried before they are decided, and decided with a reason."""

import pytest
from playwright.sync_api import expect

from models.bundle import NO_REJECT
from service.drift import LEAST
from tests.grey_parts import HEIGHT, WIDTH, inspect, write_version


def go(page, view):
    page.goto(f"{page.url.split('#')[0]}#/{view}")


def give_reason(page, reason, button):
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name=button).click()
    expect(dialog).to_have_count(0)


@pytest.fixture
def scored(api):
    """Parts of 50 to 80 are good, those of 90 and 160 are not."""
    for grey in (50, 60, 70, 80, 90, 160):
        id = inspect(api, grey)["id"]
        verdict = "ok" if grey < 85 else "ng"
        label = {"inspection_id": id, "verdict": verdict, "operator": "Bo"}
        api.post("/v1/feedback", json=label).raise_for_status()


def test_thresholds_are_tried_by_dragging_and_then_decided(page, api, scored, complaints):
    go(page, "thresholds")
    outcome = page.locator(".outcome")
    expect(outcome).to_contain_text("50% (1 of 2;")  # one defective part passes
    handle = page.get_by_role("slider", name="review from")
    box = handle.locator(".grip").bounding_box()
    chart = page.locator(".histogram").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(chart["x"] + chart["width"] * 0.34, box["y"] + 80, steps=5)
    page.mouse.up()
    expect(outcome).to_contain_text("0% (0 of 2;")
    value = float(handle.get_attribute("aria-valuenow"))
    assert 80 < value < 90
    assert api.get("/v1/recipes/cap/thresholds").json() == []  # so far it is only tried
    page.get_by_role("button", name="Use these").click()
    give_reason(page, "dents pass", "Use these")
    expect(page.locator(".revisions li")).to_contain_text("by Aya")
    [revision] = api.get("/v1/recipes/cap/thresholds").json()
    assert (revision["review"], revision["by"], revision["reason"]) == (value, "Aya", "dents pass")
    assert inspect(api, 90)["verdict"] == "review"
    assert complaints == []


def test_thresholds_that_reject_nothing_say_never_and_can_be_lowered(page, api, scored):
    asked = {
        "bundle_version": 1, "review": 85, "ng": NO_REJECT, "by": "Bo", "reason": "too few parts",
    }  # fmt: skip
    api.post("/v1/recipes/cap/thresholds", json=asked).raise_for_status()
    go(page, "thresholds")
    expect(page.locator(".revisions li")).to_contain_text("review from 85, nothing is rejected")
    field = page.get_by_label("ng", exact=True)
    expect(field).to_have_value("")
    expect(field).to_have_attribute("placeholder", "never")
    handle = page.get_by_role("slider", name="ng from")
    expect(handle).to_have_attribute("aria-valuetext", "never")
    handle.press("ArrowLeft")
    expect(handle).not_to_have_attribute("aria-valuetext", "never")
    assert 85 < float(field.input_value()) < 200
    assert inspect(api, 160)["verdict"] == "review"


def test_thresholds_are_rolled_back(page, api, scored):
    for review, reason in ((85, "first"), (120, "second")):
        asked = {"bundle_version": 1, "review": review, "ng": 150, "by": "Bo", "reason": reason}
        api.post("/v1/recipes/cap/thresholds", json=asked).raise_for_status()
    go(page, "thresholds")
    expect(page.get_by_label("review", exact=True)).to_have_value("120")
    page.get_by_role("button", name="Back to these").click()
    expect(page.get_by_label("review", exact=True)).to_have_value("85")
    page.get_by_role("button", name="Use these").click()
    give_reason(page, "too many escapes", "Use these")
    expect(page.locator(".revisions li")).to_have_count(3)
    assert api.get("/v1/recipes/cap").json()["thresholds"]["review"] == 85


def test_thresholds_move_by_keys(page, scored):
    go(page, "thresholds")
    handle = page.get_by_role("slider", name="ng from")
    handle.focus()
    before = float(handle.get_attribute("aria-valuenow"))
    page.keyboard.press("ArrowRight")
    assert float(handle.get_attribute("aria-valuenow")) > before
    expect(page.get_by_role("button", name="Use these")).to_be_enabled()
    page.get_by_role("button", name="Back to those in force").click()
    expect(page.get_by_role("button", name="Use these")).to_be_disabled()


def test_a_candidate_is_compared_promoted_and_rolled_back(page, api, store, complaints):
    go(page, "models")
    expect(page.locator(".bundle")).to_have_count(1)
    expect(page.locator(".badge")).to_have_text("agrees with its training on fake")
    write_version(store, 2, origin="retrain", parent_version=1)
    expect(page.locator(".bundle.candidate")).to_contain_text("retrained from version 1")
    for grey in (50, 120, 200):
        inspect(api, grey)
    expect(page.locator(".shadow")).to_contain_text("100% of 3 parts: the same verdict")
    page.locator(".bundle.candidate").get_by_role("button", name="Let it decide").click()
    give_reason(page, "sees more dents", "Let version 2 decide")
    expect(page.locator(".bundle.champion h2")).to_have_text("version 2")
    assert inspect(api, 50)["bundle_version"] == 2
    page.locator(".bundle", has_text="version 1").last.get_by_role(
        "button", name="Let it decide"
    ).click()
    give_reason(page, "it does not after all", "Let version 1 decide")
    expect(page.locator(".bundle.champion h2")).to_have_text("version 1")
    found = api.get("/v1/recipes/cap/promotions").json()
    assert [(one["bundle_version"], one["by"]) for one in found[:2]] == [(1, "Aya"), (2, "Aya")]
    assert complaints == []


def test_a_decision_that_is_called_off_changes_nothing(page, api, store):
    write_version(store, 2)
    go(page, "models")
    page.locator(".bundle.candidate").get_by_role("button", name="Let it decide").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len(api.get("/v1/recipes/cap/promotions").json()) == 1


def test_an_area_is_drawn_on_a_part_and_holds(page, api, complaints):
    inspect(api, 50)
    go(page, "recipe")
    page.get_by_role("button", name="Box").click()
    sheet = page.locator(".sheet").bounding_box()
    page.mouse.move(sheet["x"] + 1, sheet["y"] + 1)
    page.mouse.down()
    page.mouse.move(sheet["x"] + sheet["width"] / 2, sheet["y"] + sheet["height"] - 1, steps=4)
    page.mouse.up()
    expect(page.locator(".areas .counted")).to_have_count(1)
    page.get_by_label("mm per pixel").fill("0.1")
    page.get_by_label("smallest region that counts").fill("0.5")
    page.get_by_label("number by which a PLC").fill("7")
    page.get_by_role("button", name="Use these").click()
    give_reason(page, "the clamp is seen", "Use these")
    expect(page.locator(".revisions li")).to_contain_text("the clamp is seen")
    [revision] = api.get("/v1/recipes/cap/revisions").json()
    settings = revision["settings"]
    assert (settings["mm_per_pixel"], settings["smallest_mm2"], settings["number"]) == (0.1, 0.5, 7)
    [polygon] = settings["counted"]
    assert max(x for x, _ in polygon) == pytest.approx(0.5, abs=1 / WIDTH)
    assert max(y for _, y in polygon) == pytest.approx(1, abs=1 / HEIGHT)
    page.reload()
    expect(page.locator(".areas .counted")).to_have_count(1)
    expect(page.get_by_label("mm per pixel")).to_have_value("0.1")
    assert complaints == []


def test_settings_that_cannot_be_are_said(page, api):
    inspect(api, 50)
    go(page, "recipe")
    page.get_by_label("smallest region that counts").fill("0.5")
    page.get_by_role("button", name="Use these").click()
    give_reason(page, "a try", "Use these")
    expect(page.get_by_role("alert")).to_contain_text("says nothing without mm_per_pixel")


def test_a_camera_that_drifts_is_said_with_what_to_do(page, api):
    for _ in range(LEAST):
        inspect(api, 70, camera="left")
    go(page, "drift")
    expect(page.locator(".camera.drifting")).to_contain_text("Look at the lamps")
    expect(page.locator(".camera .range")).to_have_count(4)


def test_single_parts_are_left_out_of_a_training(page, api):
    parts = [inspect(api, grey, part_id=f"s{grey}") for grey in (50, 60, 151, 152, 153)]
    for part in parts:
        verdict = "ng" if part["score"] > 100 else "ok"
        label = {"inspection_id": part["id"], "verdict": verdict, "operator": "Aya"}
        api.post("/v1/feedback", json=label).raise_for_status()
    go(page, "training")
    counts = page.locator(".estimate td.number")
    expect(counts.first).to_have_text("3")
    page.get_by_text("Leave single parts out").click()
    shown = page.locator(".parts .part")
    expect(shown).to_have_count(5)
    expect(shown.first).to_contain_text("s153")  # the defective ones first
    with page.expect_request("**/estimate") as asked:
        shown.first.get_by_role("checkbox").uncheck()
    assert asked.value.post_data_json == {"without": [parts[-1]["id"]]}
    expect(counts.first).to_have_text("2")
    page.get_by_label("Camera").fill("elsewhere")
    page.keyboard.press("Tab")
    expect(shown).to_have_count(0)
    page.get_by_label("Camera").fill("")
    page.keyboard.press("Tab")
    expect(shown.first.get_by_role("checkbox")).not_to_be_checked()
