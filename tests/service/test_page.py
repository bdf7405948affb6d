"""The operators' page, in a real browser against a real service."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from PIL import Image
from structlog.testing import capture_logs

from models.bundle import (
    FILES,
    BackboneReference,
    Calibration,
    Manifest,
    Thresholds,
    write_bundle,
)
from models.image import InputSize, PixelContract
from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from tests.listening import listening

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: [test] extra")
expect = playwright.expect
Page = Any  # playwright.Page, where playwright is there

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PAGE = 30  # rows that the page asks for at a time

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"
)


def image(grey: int, format: str = "PNG") -> bytes:
    """A plain image of 64 × 48; FakeEngine scores it as its grey value."""
    buffer = io.BytesIO()
    Image.new("L", (64, 48), grey).save(buffer, format)
    return buffer.getvalue()


def image_file(name: str, grey: int) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": image(grey)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    manifest = Manifest(
        recipe="cap",
        version=1,
        created_at=datetime.now(UTC),
        origin="fit",
        method="fake",
        input=InputSize(height=32, width=32),
        pixels=PixelContract(),
        calibration=Calibration(
            count=10,
            quantiles=tuple(float(value) for value in range(101)),
            false_review_rate=0.01,
            false_reject_rate=0.001,
            resolvable_false_reject=0.1,
        ),
        thresholds=Thresholds(review=100, ng=150),
        backbone=BackboneReference(name="fake", sha256="0" * 64, licence="Apache-2.0"),
        metrics={},
        sha256={},
    )
    write_bundle(store, manifest, dict.fromkeys(FILES, b"unused by FakeEngine"))
    return store


@pytest.fixture
def api(store: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a service of its own, on a free port."""
    app = create_app(
        Settings(store=store, data=tmp_path / "data"), open_engine=lambda bundle: FakeEngine()
    )
    # Logged from another thread, lines would slip past pytest's capture.
    with (
        listening(app) as (host, port),
        capture_logs(),
        httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("chromium"),
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport={"width": 1280, "height": 800},
        )
        yield context
        context.close()


@pytest.fixture
def page(browser: Any, api: httpx.Client) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(str(api.base_url))
    yield page
    page.close()


@pytest.fixture
def complaints(page: Page) -> list[str]:
    """What the browser's console says of errors from here on; a breach of the CSP is one."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else 0)
    page.on("pageerror", lambda error: said.append(str(error)))
    return said


def inspect(api: httpx.Client, grey: int, **query: str) -> dict[str, Any]:
    answer = api.post(
        "/v1/inspect", content=image(grey), params=query, headers={"Content-Type": "image/png"}
    )
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def rows(page: Page) -> Any:
    return page.get_by_role("option")


def test_it_loads_without_an_error_and_fits_the_screen(page: Page, complaints: list[str]) -> None:
    page.reload()
    expect(page.get_by_label("Recipes in service")).to_have_text("cap version 1 on fake")
    expect(page.locator("#state")).to_have_text("ready")
    expect(page.locator("#none")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert complaints == []


def test_an_image_is_inspected_and_shown(
    page: Page, api: httpx.Client, complaints: list[str]
) -> None:
    page.get_by_label("Part id").fill("cap-7")
    page.set_input_files("#files", [image_file("a.png", 200)])
    expect(rows(page)).to_have_count(1)
    expect(rows(page).first).to_contain_text("ng")
    expect(rows(page).first).to_contain_text("cap-7")
    expect(page.locator("#verdict")).to_have_text("ng")
    expect(page.locator("#thresholds")).to_have_text("review from 100, ng from 150")
    expect(page.locator("#image rect")).to_have_attribute("width", "64")
    for picture in ("#image img", "#overlay img", ".thumbnail"):
        page.wait_for_function(f"document.querySelector('{picture}').naturalWidth === 64")
    [stored] = api.get("/v1/inspections").json()["items"]
    assert (stored["part_id"], stored["verdict"]) == ("cap-7", "ng")
    assert complaints == []


def test_keys_move_and_label(page: Page, api: httpx.Client, complaints: list[str]) -> None:
    ids = [inspect(api, grey)["id"] for grey in (50, 120, 200)]
    expect(rows(page)).to_have_count(3)
    expect(rows(page).locator(".verdict")).to_have_text(["ng", "review", "ok"])
    rows(page).first.click()
    page.get_by_label("Operator").fill("Aya")
    page.get_by_label("Defect class").fill("dent")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    expect(page.locator("#stored")).to_contain_text("Labelled ng (dent) by Aya")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#stored")).to_have_text("Not labelled yet.")
    page.keyboard.press("u")
    expect(page.locator("#stored")).to_contain_text("Labelled unsure by Aya")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("o")
    expect(rows(page).nth(2)).to_contain_text("labelled ok")

    labels = [api.get(f"/v1/inspections/{id}").json()["feedback"] for id in reversed(ids)]
    assert [label["verdict"] for label in labels] == ["ng", "unsure", "ok"]
    assert [label["defect_class"] for label in labels] == ["dent", None, None]
    assert {label["operator"] for label in labels} == {"Aya"}
    page.reload()
    expect(page.get_by_label("Operator")).to_have_value("Aya")
    assert complaints == []


def test_a_label_without_an_operator_is_not_sent(page: Page, api: httpx.Client) -> None:
    page.evaluate("localStorage.clear()")
    page.reload()
    id = inspect(api, 50)["id"]
    expect(rows(page)).to_have_count(1)
    page.keyboard.press("n")
    expect(page.get_by_label("Operator")).to_be_focused()
    expect(page.get_by_label("Operator")).to_have_value("")
    assert api.get(f"/v1/inspections/{id}").json()["feedback"] is None


def test_a_refused_image_says_why(page: Page, api: httpx.Client) -> None:
    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}
    page.set_input_files("#files", [text, image_file("good.png", 50)])
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("notes.txt: Unsupported media type.")
    expect(notice).to_contain_text("'text/plain' is not one that is accepted")
    expect(notice.get_by_role("button", name="Try again")).to_be_hidden()
    expect(rows(page)).to_have_count(1)
    notice.get_by_role("button", name="Dismiss").click()
    expect(notice).to_have_count(0)


def test_an_unanswered_label_is_sent_again_under_the_same_key(
    page: Page, api: httpx.Client
) -> None:
    id = inspect(api, 50)["id"]
    expect(rows(page)).to_have_count(1)
    page.get_by_label("Operator").fill("Aya")
    keys: list[str] = []

    def lose_the_answer(route: Any) -> None:
        keys.append(route.request.headers["idempotency-key"])
        route.fetch()
        route.abort()

    page.route("**/v1/feedback", lose_the_answer, times=1)
    page.get_by_role("button", name="unsure").click()
    expect(page.get_by_role("alert")).to_contain_text("The service cannot be reached.")
    first = api.get(f"/v1/inspections/{id}").json()["feedback"]
    with page.expect_response("**/v1/feedback") as again:
        page.get_by_role("button", name="Try again").click()
    keys.append(again.value.request.headers["idempotency-key"])
    assert keys[0] == keys[1]
    assert again.value.json()["id"] == first["id"]
    expect(page.get_by_role("alert")).to_have_count(0)


def test_the_selected_part_stays_when_others_arrive(page: Page, api: httpx.Client) -> None:
    inspect(api, 50, part_id="first")
    expect(page.locator("#about")).to_contain_text("part first")
    inspect(api, 200, part_id="second")
    expect(rows(page)).to_have_count(2)
    expect(rows(page).nth(1)).to_have_attribute("aria-selected", "true")
    expect(page.locator("#about")).to_contain_text("part first")


def test_older_inspections_follow_on_request(page: Page, api: httpx.Client) -> None:
    for number in range(PAGE + 2):
        inspect(api, 50, part_id=f"part {number}")
    page.reload()
    expect(rows(page)).to_have_count(PAGE)
    page.get_by_role("button", name="Older").click()
    expect(rows(page)).to_have_count(PAGE + 2)
    expect(page.get_by_role("button", name="Older")).to_be_hidden()
    expect(rows(page).last).to_contain_text("part 0")


def test_a_burst_of_inspections_leaves_no_hole_in_the_list(page: Page) -> None:
    listed = page.evaluate(
        """async () => {
            const { Recent } = await import('/recent.js');
            const made = (number) => ({
                id: `${number}`, creation_time: new Date(1000 * number).toISOString(),
            });
            const recent = new Recent(2);
            recent.takeNewest({ items: [made(2), made(1)], next: null });
            recent.takeNewest({ items: [made(9), made(8)], next: '8' });
            const afterBurst = recent.items.map((item) => item.id);
            recent.takeOlder({ items: [made(7), made(6)], next: '6' });
            recent.takeNewest({ items: [made(10), made(9)], next: '9' });
            return [afterBurst, recent.items.map((item) => item.id), recent.next];
        }"""
    )
    assert listed == [["9", "8"], ["10", "9", "8", "7"], "7"]


def test_a_service_that_does_not_answer_is_seen_and_so_is_its_return(page: Page) -> None:
    page.route("**/v1/inspections?*", lambda route: route.abort())
    expect(page.locator("#state")).to_have_text("No answer: The service cannot be reached.")
    page.unroute("**/v1/inspections?*")
    expect(page.locator("#state")).to_have_text("ready")


def test_an_image_that_the_browser_cannot_show_is_explained(page: Page) -> None:
    tiff = {"name": "a.tiff", "mimeType": "image/tiff", "buffer": image(50, "TIFF")}
    page.set_input_files("#files", [tiff])
    expect(page.locator("#image")).to_contain_text("This browser cannot show image/tiff.")
    page.wait_for_function("document.querySelector('#overlay img').naturalWidth === 64")


def test_what_a_sender_wrote_is_text(page: Page, api: httpx.Client, complaints: list[str]) -> None:
    part = "<img src=x onerror=alert(1)>"
    inspect(api, 50, part_id=part)
    expect(rows(page).locator(".part")).to_have_text(part)
    expect(page.locator("#about")).to_contain_text(part)
    assert complaints == []


def test_the_browser_refuses_foreign_scripts(page: Page, complaints: list[str]) -> None:
    page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.ran = true';
            document.head.append(script);
        }"""
    )
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in complaints)


def test_every_file_of_the_page_carries_the_policy(api: httpx.Client) -> None:
    for path in ("/", "/app.js", "/style.css"):
        headers = api.get(path).raise_for_status().headers
        assert headers["content-security-policy"] == (
            "default-src 'self'; img-src 'self' blob: data:"
        )
        assert headers["x-content-type-options"] == "nosniff"
