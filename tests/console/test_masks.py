"""Masks: drawn, undone by stroke, kept while they are drawn, and reopened pixel for pixel."""

import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.grey_parts import HEIGHT, WIDTH, inspect


@pytest.fixture
def part(api):
    return inspect(api, 125, part_id="m1")


@pytest.fixture
def review(page, part):
    page.goto(f"{page.url.split('#')[0]}#/review")
    expect(page.locator(".head")).to_contain_text("part m1")
    return page


def at(page, x, y):
    """Where a pixel of the image lies on the screen."""
    box = page.locator(".sheet").bounding_box()
    return box["x"] + x * box["width"] / WIDTH, box["y"] + y * box["height"] / HEIGHT


def stroke(page, *points):
    page.mouse.move(*at(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*at(page, *point), steps=4)
    page.mouse.up()


def shown(page):
    """What is marked on the screen."""
    alpha = page.evaluate(
        """() => {
            const canvas = document.querySelector('canvas.mask');
            const { width, height } = canvas;
            const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
            return Array.from({ length: data.length / 4 }, (_, i) => (data[4 * i + 3] > 0 ? 1 : 0));
        }"""
    )
    return np.array(alpha, bool).reshape(HEIGHT, WIDTH)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("L")) > 127


def tool(page, name):
    page.keyboard.press({"brush": "b", "eraser": "e", "polygon": "p", "box": "r"}[name])
    expect(page.locator(f".tool[data-tool={name}]")).to_have_attribute("aria-pressed", "true")


def test_strokes_are_undone_one_by_one(review):
    tool(review, "brush")
    stroke(review, (10, 10), (30, 10))
    first = shown(review)
    assert first[10, 10:30].all()
    tool(review, "box")
    stroke(review, (40.5, 20.5), (49.5, 29.5))
    second = shown(review)
    assert (second & ~first).sum() == 100
    assert second[20:30, 40:50].all()
    tool(review, "eraser")
    stroke(review, (45, 15), (45, 40))
    third = shown(review)
    assert not third[25, 45]
    for before in (second, first, np.zeros_like(first)):
        review.keyboard.press("z")
        assert np.array_equal(shown(review), before)
    for after in (first, second, third):
        review.keyboard.press("y")
        assert np.array_equal(shown(review), after)


def test_a_polygon_holds_the_pixels_whose_centres_lie_within(review):
    tool(review, "polygon")
    for corner in ((10, 10), (30, 10), (30, 30)):
        review.mouse.click(*at(review, *corner))
    review.keyboard.press("Enter")
    marked = shown(review)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    inside = (columns > rows) & (columns < 30) & (rows > 10)
    edge = np.abs(columns - rows) < 1
    assert np.array_equal(marked & ~edge, inside & ~edge)


def test_a_draft_is_kept_while_it_is_drawn_and_reopened_as_it_was(review, api, part):
    tool(review, "brush")
    with review.expect_response(lambda answer: answer.request.method == "PUT") as kept:
        stroke(review, (5, 5), (50, 40))
    assert kept.value.status == 204
    drawn = shown(review)
    draft = api.get(f"/v1/inspections/{part['id']}/draft", params={"operator": "Aya"})
    assert np.array_equal(pixels(draft.content), drawn)
    review.reload()
    expect(review.locator(".head")).to_contain_text("part m1")
    expect(review.get_by_role("button", name="Clear")).to_be_enabled()
    assert np.array_equal(shown(review), drawn)


def test_a_label_carries_the_mask_and_shows_it_again(review, api, part):
    tool(review, "polygon")
    for corner in ((8, 8), (40, 12), (22, 40)):
        review.mouse.click(*at(review, *corner))
    review.mouse.dblclick(*at(review, 22, 40))
    drawn = shown(review)
    assert drawn.any()
    with review.expect_response("**/v1/feedback") as stored:
        review.keyboard.press("n")
    id = stored.value.json()["id"]
    assert np.array_equal(pixels(api.get(f"/v1/feedback/{id}/mask").content), drawn)
    expect(review.locator(".empty")).to_be_visible()
    review.keyboard.press("Backspace")
    expect(review.locator(".head")).to_contain_text("part m1")


def test_a_mask_goes_with_ng_only(review, api, part):
    tool(review, "box")
    stroke(review, (10, 10), (20, 20))
    with review.expect_response("**/v1/feedback") as stored:
        review.keyboard.press("o")
    assert stored.value.status == 201
    assert api.get(f"/v1/inspections/{part['id']}").json()["feedback"]["has_mask"] is False


def test_the_picture_is_zoomed_and_moved_and_fits_again(review):
    whole = review.locator(".sheet").bounding_box()
    review.mouse.move(*at(review, 32, 24))
    review.mouse.wheel(0, -100)
    larger = review.locator(".sheet").bounding_box()
    assert larger["width"] > 1.2 * whole["width"]
    stroke(review, (30, 20), (34, 24))
    assert review.locator(".sheet").bounding_box()["x"] > larger["x"]
    review.keyboard.press("0")
    assert review.locator(".sheet").bounding_box() == pytest.approx(whole)


def test_the_picture_stays_where_it_is_while_a_mask_is_drawn(review):
    places = review.evaluate_handle(
        """() => {
            const places = new Set();
            const look = () => {
                const { x, y, width } = document.querySelector('.sheet').getBoundingClientRect();
                places.add(`${x} ${y} ${width}`);
                requestAnimationFrame(look);
            };
            look();
            return places;
        }"""
    )
    tool(review, "polygon")
    for width in range(900, 1500, 50):  # each breaks the bar's line elsewhere
        review.set_viewport_size({"width": width, "height": 800})
        resized(review)
        review.evaluate("places => places.clear()", places)
        for corner in ((10, 10), (30, 10), (30, 30)):
            review.mouse.click(*at(review, *corner))
        review.keyboard.press("Enter")
        expect(review.locator(".saved")).to_have_text("mask kept")
        review.keyboard.press("z")
        expect(review.locator(".saved")).to_have_text("")
        assert review.evaluate("places => places.size", places) == 1


def test_what_was_zoomed_into_stays_when_the_window_is_resized(review):
    def place():
        return review.evaluate("() => document.querySelector('.sheet').style.transform")

    whole = place()
    review.keyboard.press("+")
    zoomed = place()
    review.set_viewport_size({"width": 1100, "height": 700})
    assert resized(review) == zoomed
    review.keyboard.press("0")
    assert place() not in (whole, zoomed)


def test_below_a_pen_nothing_moves_until_it_is_lifted(review):
    tool(review, "box")
    review.mouse.move(*at(review, 10.5, 10.5))
    review.mouse.down()
    before = resized(review)
    review.set_viewport_size({"width": 1100, "height": 700})
    assert resized(review) == before
    review.mouse.up()
    assert resized(review) != before


def resized(page):
    """Where the picture is once its stage has the size that it gets."""
    return page.evaluate(
        """() => new Promise((known) => {
            const place = () => known(document.querySelector('.sheet').style.transform);
            requestAnimationFrame(() => requestAnimationFrame(place));
        })"""
    )


def labelled(page, api, part):
    """The mask of the label that was given last, once it has arrived."""
    expect(page.locator(".empty")).to_be_visible()
    page.wait_for_function("() => localStorage.getItem('kizu.labels') === '[]'")
    [label, *_] = api.get(f"/v1/inspections/{part['id']}/feedback").json()
    return pixels(api.get(f"/v1/feedback/{label['id']}/mask").content)


@pytest.mark.parametrize("verdict", ["n", "o"])
def test_a_mask_comes_back_with_the_label_that_is_taken_back(review, api, part, verdict):
    tool(review, "brush")
    stroke(review, (20, 20), (40, 20))
    drawn = shown(review)
    review.keyboard.press(verdict)
    expect(review.locator(".empty")).to_be_visible()
    review.get_by_role("button", name="Take back").click()
    expect(review.locator(".head")).to_contain_text("part m1")
    expect(review.locator(".saved")).to_have_text("mask kept")
    assert np.array_equal(shown(review), drawn)
    review.keyboard.press("n")
    assert np.array_equal(labelled(review, api, part), drawn)


def test_a_polygon_that_is_still_open_goes_into_the_label(review, api, part):
    tool(review, "polygon")
    for corner in ((10, 10), (30, 10), (30, 30)):
        review.mouse.click(*at(review, *corner))
    review.keyboard.press("n")
    marked = labelled(review, api, part)
    assert marked[12, 28]
    assert not marked[28, 12]


def test_undo_takes_back_a_corner_and_then_the_stroke_before(review):
    tool(review, "box")
    stroke(review, (40.5, 20.5), (49.5, 29.5))
    box = shown(review)
    tool(review, "polygon")
    for corner in ((10, 10), (30, 10), (30, 30)):
        review.mouse.click(*at(review, *corner))
    expect(review.get_by_role("button", name="Close polygon")).to_be_enabled()
    for _ in range(3):
        review.keyboard.press("z")
        assert np.array_equal(shown(review), box)
    expect(review.get_by_role("button", name="Close polygon")).to_be_disabled()
    review.keyboard.press("z")
    assert not shown(review).any()


def test_buttons_keep_the_focus_and_answer_enter(review):
    button = review.get_by_role("button", name="Brush")
    button.focus()
    review.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(button).to_be_focused()
    review.get_by_role("button", name="unsure").focus()
    review.keyboard.press("Enter")
    expect(review.locator(".empty")).to_be_visible()
