"""Everything that was inspected, searched by what is known of a part."""

import re

import pytest
from playwright.sync_api import expect

from tests.grey_parts import inspect

PAGE = 50


@pytest.fixture
def history(page, api):
    ids = {}
    for grey, part, lot in ((50, "a", "17"), (120, "b", "17"), (200, "c", "18")):
        ids[part] = inspect(api, grey, part_id=part, lot=lot, camera="top")["id"]
    label = {"inspection_id": ids["a"], "verdict": "ng", "defect_class": "dent", "operator": "Bo"}
    api.post("/v1/feedback", json=label).raise_for_status()
    page.goto(f"{page.url.split('#')[0]}#/history")
    expect(rows(page)).to_have_count(3)
    return page


def rows(page):
    return page.locator(".list tbody tr")


def test_parts_are_found_by_what_is_known_of_them(history, complaints):
    history.get_by_label("Lot").fill("17")
    history.get_by_role("button", name="Search").click()
    expect(rows(history)).to_have_count(2)
    history.get_by_role("search").get_by_label("Verdict").select_option("review")
    history.keyboard.press("Tab")
    history.get_by_role("button", name="Search").click()
    expect(rows(history)).to_have_count(1)
    expect(rows(history)).to_contain_text("b")
    expect(history.get_by_label("Lot")).to_have_value("17")  # what was asked for stays
    history.go_back()
    expect(rows(history)).to_have_count(2)
    assert complaints == []


def test_what_the_model_missed_is_one_choice(history):
    history.get_by_role("search").get_by_label("Label").select_option("missed")
    history.get_by_role("button", name="Search").click()
    expect(rows(history)).to_have_count(1)
    expect(rows(history)).to_contain_text("ng (dent)")


def test_a_time_is_the_readers(history):
    history.get_by_label("From").fill("2999-01-01T00:00")
    history.get_by_role("button", name="Search").click()
    expect(history.get_by_text("Nothing fits.")).to_be_visible()


def test_older_parts_follow_on_request(history, api):
    for number in range(PAGE):
        inspect(api, 50, part_id=f"n{number}")
    history.reload()
    expect(rows(history)).to_have_count(PAGE)
    history.get_by_role("button", name="Older").click()
    expect(rows(history)).to_have_count(PAGE + 3)
    expect(history.get_by_role("button", name="Older")).to_be_hidden()
    expect(rows(history).last).to_contain_text("a")


def test_a_part_is_opened_with_all_that_was_said_of_it(history):
    rows(history).last.get_by_role("link").first.click()
    expect(history.locator(".labels")).to_contain_text("ng (dent) by Bo")
    expect(history.locator("dl.facts")).to_contain_text("17")


def test_a_row_opens_wherever_it_is_hit(page, api):
    part = inspect(api, 200, part_id="h9", lot="L7")
    page.goto(f"{page.url.split('#')[0]}#/history")
    page.get_by_role("cell", name="L7").click()
    expect(page).to_have_url(re.compile(f"#/inspection/{part['id']}$"))
    page.get_by_role("group", name="Label this part").get_by_role("button", name="ok").click()
    expect(page.locator(".labels")).to_contain_text("ok by Aya")
    feedback = api.get(f"/v1/inspections/{part['id']}").json()["feedback"]
    assert (feedback["verdict"], feedback["operator"]) == ("ok", "Aya")
    page.get_by_role("button", name="Back").click()
    expect(page.locator(".list")).to_be_visible()
