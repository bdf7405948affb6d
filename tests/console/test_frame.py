"""What is around the views: it loads cleanly, in two languages, for everybody, whatever happens."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.console.conftest import open_page
from tests.grey_parts import inspect, write_version

WEB = Path(__file__).parents[2] / "service" / "web"
VIEWS = ["line", "review", "history", "thresholds", "models", "training", "recipe", "drift"]


@pytest.fixture
def inspected(api):
    """One part of each verdict."""
    return [inspect(api, grey, part_id=f"p{grey}", camera="top") for grey in (50, 120, 200)]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_opens_without_a_complaint_and_fits_the_screen(
    page, inspected, complaints, view
):
    page.goto(f"{page.url.split('#')[0]}#/{view}")
    expect(page.locator(f".view.{view}")).not_to_be_empty()
    expect(page.locator("#state")).to_have_text("ready")
    expect(page.locator("#nav [aria-current]")).to_have_attribute("data-view", view)
    if view != "line":  # which never stops listening
        page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.get_by_role("alert").count() == 0
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [*VIEWS, "inspection"])
def test_every_view_is_accessible(page, inspected, view, scheme):
    page.emulate_media(color_scheme=scheme)
    where = f"inspection/{inspected[2]['id']}" if view == "inspection" else view
    page.goto(f"{page.url.split('#')[0]}#/{where}")
    expect(page.locator(f".view.{view} >> visible=true").first).not_to_be_empty()
    page.wait_for_function("() => document.querySelectorAll('.view *').length > 8")
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]})
    assert found.violations_count == 0, found.generate_report()


def test_the_language_is_chosen_and_stays(page, inspected):
    page.get_by_label("Language").select_option("ja")
    expect(page.locator("#nav")).to_contain_text("しきい値")
    expect(page.locator("html")).to_have_attribute("lang", "ja")
    page.reload()
    expect(page.locator("#state")).to_have_text("稼働中")
    expect(page.locator(".huge")).to_have_text("不良")


def test_no_text_is_left_untranslated(page):
    texts = set()
    for file in WEB.rglob("*.js"):
        code = file.read_text("utf-8")
        texts |= {found[1] for found in re.findall(r"\bt\((['\"])(.+?)\1", code)}
        for table in re.findall(r"const [A-Z]+ = (\{.+?\});", code, re.S):
            texts |= set(re.findall(r": \[?'([^']+)'", table))
    known = "async (texts) => (await import('/texts.js')).untranslated(texts)"
    words_of_the_code = {"日本語", "move", "line", "box", "polygon", "ok", "ng", "application/json"}
    assert set(page.evaluate(known, sorted(texts))) - words_of_the_code == set()


def test_a_service_that_does_not_answer_is_seen_and_so_is_its_return(page):
    expect(page.locator("#state")).to_have_text("ready")
    page.route("**/health/ready", lambda route: route.abort())
    expect(page.locator("#state")).to_have_text("No answer: The service cannot be reached.")
    page.unroute("**/health/ready")
    expect(page.locator("#state")).to_have_text("ready")


def test_a_slow_and_failing_api_is_said_and_can_be_asked_again(page, inspected):
    page.route("**/v1/inspections?*", lambda route: route.fulfill(status=503, body="{}"), times=1)
    page.get_by_role("link", name="History").click()
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("History: HTTP 503.")
    notice.get_by_role("button", name="Try again").click()
    expect(page.locator(".list tbody tr")).to_have_count(3)
    expect(notice).to_have_count(0)


def test_several_recipes_are_chosen_among(store, api, context):
    write_version(store, recipe="lid")
    page = open_page(context, api)
    inspect(api, 200, recipe="lid")
    page.get_by_label("Recipe").select_option("lid")
    expect(page.locator(".huge")).to_have_text("ng")
    page.get_by_label("Recipe").select_option("cap")
    expect(page.locator(".last")).to_have_text("Nothing has been inspected yet.")
    page.reload()
    expect(page.get_by_label("Recipe")).to_have_value("cap")


def test_what_a_sender_wrote_is_text(page, api, complaints):
    part = "<img src=x onerror=alert(1)>"
    inspect(api, 200, part_id=part, camera=part, lot=part)
    for view in ("line", "history", "review"):
        page.goto(f"{page.url.split('#')[0]}#/{view}")
        expect(page.locator("#view")).to_contain_text(part)
    assert complaints == []


def test_the_browser_refuses_foreign_scripts(page, complaints):
    page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.ran = true';
            document.head.append(script);
        }"""
    )
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in complaints)


def test_every_file_of_the_page_carries_the_policy(api):
    for path in ("/", "/app.js", "/views/review.js", "/style.css"):
        headers = api.get(path).raise_for_status().headers
        assert headers["content-security-policy"] == (
            "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        )
        assert headers["x-content-type-options"] == "nosniff"


def test_a_report_can_run_nothing(api):
    headers = api.get("/v1/recipes/cap/bundles/1/report").raise_for_status().headers
    assert headers["content-security-policy"].startswith("sandbox; default-src 'none'")
