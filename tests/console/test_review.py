"""The review queue, by keys alone."""

import pytest
from playwright.sync_api import expect

from tests.console.conftest import open_page
from tests.grey_parts import inspect


@pytest.fixture
def waiting(api):
    """Three parts, in the order in which they are shown."""
    return [inspect(api, grey, part_id=f"p{grey}") for grey in (102, 125, 250)]


@pytest.fixture
def review(page, waiting):
    page.goto(f"{page.url.split('#')[0]}#/review")
    expect(page.locator(".head")).to_contain_text("part p102")
    return page


def labels(api, items):
    found = [api.get(f"/v1/inspections/{item['id']}").json()["feedback"] for item in items]
    return [feedback and feedback["verdict"] for feedback in found]


def test_parts_follow_each_other_by_keys_alone(review, api, waiting, complaints):
    expect(review.locator(".reason")).to_have_text("close to a threshold")
    review.keyboard.press("o")
    expect(review.locator(".head")).to_contain_text("part p125")
    review.keyboard.press("n")
    expect(review.locator(".head")).to_contain_text("part p250")
    review.keyboard.press("u")
    expect(review.locator(".empty")).to_contain_text("Nothing waits for review.")
    expect(review.locator(".waiting")).to_have_text("0 waiting")
    assert labels(api, waiting) == ["ok", "ng", "unsure"]
    assert complaints == []


def test_a_defect_class_is_one_key(review, api, waiting):
    review.get_by_role("textbox", name="Defect class").fill("dent")
    review.keyboard.press("Enter")
    expect(review.locator(".head")).to_contain_text("part p125")
    expect(review.get_by_role("button", name="dent 1")).to_be_visible()
    review.keyboard.press("Escape")
    review.keyboard.press("1")
    expect(review.locator(".head")).to_contain_text("part p250")
    review.wait_for_function("() => localStorage.getItem('kizu.labels') === '[]'")
    for item in waiting[:2]:
        feedback = api.get(f"/v1/inspections/{item['id']}").json()["feedback"]
        assert (feedback["defect_class"], feedback["operator"]) == ("dent", "Aya")


def test_a_label_is_taken_back(review, api, waiting):
    review.keyboard.press("n")
    expect(review.locator(".head")).to_contain_text("part p125")
    review.keyboard.press("Backspace")
    expect(review.locator(".head")).to_contain_text("part p102")
    assert labels(api, waiting) == [None, None, None]
    review.keyboard.press("o")
    expect(review.locator(".head")).to_contain_text("part p125")
    review.wait_for_function("() => localStorage.getItem('kizu.labels') === '[]'")
    assert labels(api, waiting) == ["ok", None, None]


def test_who_labels_is_asked_once_and_the_label_goes_on(review, api, waiting):
    review.get_by_label("Operator").fill("")
    review.locator("#stage").focus()
    review.keyboard.press("o")
    expect(review.get_by_role("dialog")).to_contain_text("Who are you?")
    review.keyboard.type("nou")  # keys of the queue, too
    assert labels(api, waiting) == [None, None, None]
    review.keyboard.press("Enter")
    expect(review.locator(".head")).to_contain_text("part p125")
    review.keyboard.press("n")
    expect(review.locator(".head")).to_contain_text("part p250")
    review.wait_for_function("() => localStorage.getItem('kizu.labels') === '[]'")
    assert labels(api, waiting) == ["ok", "ng", None]
    said = api.get(f"/v1/inspections/{waiting[0]['id']}").json()["feedback"]
    assert said["operator"] == "nou"


def test_who_does_not_say_who_labels_labels_nothing(review, api, waiting):
    review.get_by_label("Operator").fill("")
    review.locator("#stage").focus()
    review.keyboard.press("o")
    review.keyboard.press("Escape")
    expect(review.get_by_role("dialog")).to_have_count(0)
    expect(review.locator(".head")).to_contain_text("part p102")
    review.keyboard.press("s")
    expect(review.locator(".head")).to_contain_text("part p125")
    assert labels(api, waiting) == [None, None, None]


def test_a_finger_that_bounces_labels_one_part(review, api, waiting):
    review.get_by_role("group", name="Label").get_by_role("button", name="ok").dblclick()
    expect(review.locator(".head")).to_contain_text("part p125")
    review.wait_for_function("() => localStorage.getItem('kizu.labels') === '[]'")
    assert labels(api, waiting) == ["ok", None, None]


def test_what_was_skipped_is_taken_back_before_what_was_labelled(review, api, waiting):
    review.keyboard.press("o")
    expect(review.locator(".before")).to_have_text("last: p102, ok")
    review.keyboard.press("s")
    expect(review.locator(".before")).to_have_text("last: p125, skipped")
    expect(review.locator(".head")).to_contain_text("part p250")
    review.keyboard.press("Backspace")
    expect(review.locator(".head")).to_contain_text("part p125")
    expect(review.locator(".before")).to_have_text("last: p102, ok")
    review.wait_for_function("() => localStorage.getItem('kizu.labels') === '[]'")
    assert labels(api, waiting) == ["ok", None, None]
    review.keyboard.press("n")
    expect(review.locator(".head")).to_contain_text("part p250")
    review.wait_for_function("() => localStorage.getItem('kizu.labels') === '[]'")
    assert labels(api, waiting) == ["ok", "ng", None]


def test_two_screens_never_show_the_same_part(review, context, api):
    other = open_page(context, api, operator="Bo")
    other.goto(f"{api.base_url}#/review")
    expect(other.locator(".empty")).to_contain_text("Nothing waits for review.")
    review.keyboard.press("s")
    expect(review.locator(".head")).to_contain_text("part p125")
    other.reload()
    expect(other.locator(".head")).to_contain_text("part p102")
    other.close()
    review.get_by_role("link", name="Line").click()  # and what it held is free again
    third = open_page(context, api, operator="Cy")
    third.goto(f"{api.base_url}#/review")
    expect(third.locator(".head")).to_contain_text("part p")


def test_a_part_that_somebody_else_labelled_meanwhile_is_said(review, api, waiting):
    label = {"inspection_id": waiting[0]["id"], "verdict": "ng", "operator": "Bo"}
    api.post("/v1/feedback", json=label).raise_for_status()
    review.keyboard.press("o")
    expect(review.get_by_role("alert")).to_contain_text("has changed meanwhile: ng by Bo")
    assert labels(api, waiting)[0] == "ng"


def test_what_operators_are_unsure_of_waits_for_an_engineer(review):
    review.keyboard.press("u")
    expect(review.locator(".head")).to_contain_text("part p125")
    review.get_by_label("Desk").select_option("engineer")
    expect(review.locator(".head")).to_contain_text("part p102")
    expect(review.locator(".reason")).to_have_text("an operator is not sure")
    expect(review.locator(".said")).to_contain_text("unsure by Aya")


def test_what_was_on_its_way_to_one_desk_is_not_shown_at_the_other(review):
    late = []

    def hold_the_first(route):
        if late:
            route.continue_()
        else:
            late.append(route)

    review.route("**/v1/review/claims", hold_the_first)
    review.keyboard.press("u")
    expect(review.locator(".head")).to_contain_text("part p125")
    review.get_by_label("Desk").select_option("engineer")
    expect(review.locator(".head")).to_contain_text("part p102")
    with review.expect_response("**/v1/review/claims") as answer:
        late[0].continue_()
    answer.value.finished()
    review.evaluate("() => new Promise((done) => { setTimeout(done); })")  # it is taken in by then
    review.keyboard.press("o")
    expect(review.locator(".empty")).to_contain_text("Operators agree")


def test_no_label_is_lost_with_the_connection_or_the_page(review, context, api, waiting):
    context.set_offline(True)
    review.keyboard.press("n")
    expect(review.get_by_role("alert").first).to_contain_text("The service cannot be reached.")
    expect(review.locator(".head")).to_contain_text("part p125")
    assert labels(api, waiting)[0] is None
    context.set_offline(False)
    review.reload()
    review.wait_for_function("() => localStorage.getItem('kizu.labels') === '[]'")
    assert labels(api, waiting) == ["ng", None, None]
    said = api.get(f"/v1/inspections/{waiting[0]['id']}/feedback").json()
    assert len(said) == 1


def test_whoever_is_faster_than_the_service_labels_each_part_once(review, api, waiting):
    parts = waiting + [inspect(api, 100 + number) for number in range(20)]
    review.reload()
    expect(review.locator(".waiting")).to_have_text("23 waiting")
    for _ in parts:
        expect(review.locator(".verdicts")).to_be_visible()
        review.keyboard.press("o")
    expect(review.locator(".empty")).to_contain_text("Nothing waits for review.")
    review.wait_for_function("() => localStorage.getItem('kizu.labels') === '[]'")
    assert review.get_by_role("alert").count() == 0
    for part in parts:
        said = api.get(f"/v1/inspections/{part['id']}/feedback").json()
        assert [one["verdict"] for one in said] == ["ok"]
