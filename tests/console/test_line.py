"""The line as it runs."""

import pytest
from playwright.sync_api import expect

from tests.console.conftest import open_page
from tests.grey_parts import PNG, image, image_file, inspect


def test_the_last_verdict_is_shown_as_it_comes(page, api, complaints):
    expect(page.locator(".last")).to_have_text("Nothing has been inspected yet.")
    for grey, verdict in ((50, "ok"), (120, "review"), (200, "ng")):
        inspect(api, grey, part_id=f"cap-{grey}", camera="top")
        expect(page.locator(".huge")).to_have_text(verdict)
        expect(page.locator(".last")).to_contain_text(f"part cap-{grey} · camera top")
    expect(page.locator(".strip li")).to_have_count(3)
    expect(page.locator(".counters")).to_contain_text("33.3%")
    expect(page.locator(".model")).to_have_text("cap, version 1, on fake")
    assert complaints == []


def test_an_image_that_came_to_no_verdict_is_an_error_not_ok(page, api):
    inspect(api, 50)
    expect(page.locator(".huge")).to_have_text("ok")
    api.post("/v1/inspect?recipe=cap&part_id=9", content=b"no image", headers=PNG)
    expect(page.locator(".huge")).to_have_text("error")
    expect(page.locator(".last")).to_contain_text("The part was not inspected.")
    expect(page.locator(".last")).to_contain_text("part 9")
    expect(page.locator(".counters .errors")).to_contain_text("not inspected")
    expect(page.locator(".counters .errors b")).to_have_text("1")


def test_what_was_missed_while_the_connection_was_lost_is_caught_up(page, context, api):
    inspect(api, 50)
    expect(page.locator(".strip li")).to_have_count(1)
    context.set_offline(True)
    inspect(api, 120)
    inspect(api, 200)
    context.set_offline(False)
    expect(page.locator(".huge")).to_have_text("ng")
    expect(page.locator(".strip li")).to_have_count(3)


def test_a_stream_that_was_refused_is_asked_for_again(context, api):
    tries = []

    def refuse(route):
        tries.append(route.request)
        route.fulfill(status=503) if len(tries) == 1 else route.continue_()

    context.route("**/v1/events?*", refuse)
    page = open_page(context, api)
    expect(page.locator(".last")).to_have_text("Nothing has been inspected yet.")
    inspect(api, 200)
    expect(page.locator(".huge")).to_have_text("ng")
    assert len(tries) == 2


def test_the_counts_go_on_after_a_restart_of_the_page(page, api):
    for grey in (50, 50, 200):
        inspect(api, grey)
    expect(page.locator(".counters b").first).to_have_text("2")
    page.reload()
    expect(page.locator(".counters b").first).to_have_text("2")
    inspect(api, 50)
    expect(page.locator(".counters b").first).to_have_text("3")


def test_an_image_of_this_computer_is_inspected(page, api):
    page.get_by_label("Part").fill("cap-7")
    page.set_input_files(".drop input[type=file]", [image_file("a.png", 200)])
    expect(page.locator(".huge")).to_have_text("ng")
    [stored] = api.get("/v1/inspections").json()["items"]
    assert (stored["part_id"], stored["recipe_id"]) == ("cap-7", "cap")


def test_a_refused_image_says_why(page):
    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}
    page.set_input_files(".drop input[type=file]", [text, image_file("good.png", 50)])
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("notes.txt: Unsupported media type.")
    expect(notice).to_contain_text("'text/plain' is not one that is accepted")
    expect(notice.get_by_role("button", name="Try again")).to_have_count(0)
    expect(page.locator(".huge")).to_have_text("ok")
    notice.get_by_role("button", name="Dismiss").click()
    expect(notice).to_have_count(0)


def test_a_part_is_opened_with_everything_that_decided_it(page, api):
    asked = {"bundle_version": 1, "review": 90, "ng": 180, "by": "Ken", "reason": "new lamp"}
    api.post("/v1/recipes/cap/thresholds", json=asked).raise_for_status()
    inspect(api, 120, part_id="cap-1", lot="L7")
    page.locator(".strip a").click()
    facts = page.locator("dl.facts")
    for text in ("review from 90, ng from 180", "new lamp", "L7", "cap-1", "first seen in the",
                 "brightness 120"):  # fmt: skip
        expect(facts).to_contain_text(text)
    expect(page.locator(".labels, .quiet").last).to_have_text("Not labelled yet.")


def test_an_image_that_the_browser_cannot_show_is_explained(context, api):
    tiff = {"content-type": "image/tiff"}
    id = api.post("/v1/inspect", content=image(50, "TIFF"), headers=tiff).json()["id"]
    page = open_page(context, api)
    page.goto(f"{api.base_url}#/inspection/{id}")
    expect(page.locator(".unseen")).to_contain_text("This browser cannot show image/tiff.")
    expect(page.locator(".overlay")).to_have_css("opacity", "1")


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("grey", [50, 120, 200], ids=["ok", "review", "ng"])
def test_the_word_is_seen_whole_beside_the_image(context, api, grey, language):
    inspect(api, grey)
    context.add_init_script(f"localStorage.setItem('kizu.language', '{language}')")
    page = open_page(context, api)
    word = page.locator(".last .word")
    expect(word.locator(".huge")).to_be_visible()
    assert word.evaluate("(word) => word.scrollWidth <= word.clientWidth")
