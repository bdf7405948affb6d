"""What goes wrong in a plant: the operator sees what happened and what to do, and loses nothing."""

import hashlib
import io
import itertools
from contextlib import contextmanager

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from service.store import trainings
from service.store.database import open_database
from service.store.trainings import MOST_ATTEMPTS, SILENCE
from tests.console.conftest import open_page
from tests.console.test_decisions import go
from tests.console.test_masks import stroke, tool
from tests.grey_parts import image, inspect
from tests.listening import listening


@pytest.fixture
def settings(store, tmp_path):
    return Settings(store=store, data=tmp_path / "data", scan_seconds=0.05)


@contextmanager
def served(settings, port=0):
    app = create_app(settings, open_engine=lambda bundle: FakeEngine())
    with (
        listening(app, port) as (host, port),
        httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client,
    ):
        yield client
        app.state.live.close()


def test_a_label_given_while_the_service_restarts_arrives_by_itself(settings, context):
    with served(settings) as api:
        port = api.base_url.port
        part = inspect(api, 125, part_id="r1")
        page = open_page(context, api)
        page.goto(f"{api.base_url}#/review")
        expect(page.locator(".head")).to_contain_text("part r1")
    page.keyboard.press("n")
    expect(page.get_by_role("alert").first).to_contain_text("The service cannot be reached.")
    with served(settings, port) as api:
        page.wait_for_function("() => localStorage.getItem('kizu.labels') === '[]'", timeout=60_000)
        said = api.get(f"/v1/inspections/{part['id']}/feedback").json()
        assert [label["verdict"] for label in said] == ["ng"]
        inspect(api, 160, part_id="r2")
        go(page, "line")
        expect(page.locator("main")).to_contain_text("r2")


def test_a_mask_outlives_the_image_that_it_was_drawn_on(settings, context, browser):
    with served(settings) as api:
        part = inspect(api, 125, part_id="m1")
        page = open_page(context, api)
        page.goto(f"{api.base_url}#/review")
        expect(page.locator(".head")).to_contain_text("part m1")
        tool(page, "box")
        stroke(page, (10, 10), (30, 30))
        sha256 = hashlib.sha256(image(125)).hexdigest()
        (settings.data / "blobs" / sha256[:2] / sha256).unlink()  # as a retention would
        with page.expect_response("**/v1/feedback") as stored:
            page.keyboard.press("n")
        label = stored.value.json()
        mask = api.get(f"/v1/feedback/{label['id']}/mask").content
        assert np.asarray(Image.open(io.BytesIO(mask)).convert("L"))[20, 20] > 127
        elsewhere = browser.new_context()  # a browser keeps what it has seen
        page = open_page(elsewhere, api)
        page.goto(f"{api.base_url}#/inspection/{part['id']}")
        expect(page.locator(".unseen").first).to_contain_text("no longer kept")
        elsewhere.close()


def test_a_training_whose_worker_is_killed_is_shown_as_failed_and_can_be_retried(settings, context):
    with served(settings) as api:
        for grey, verdict in [(50, "ok")] * 12 + [(160, "ng")] * 2:
            part = inspect(api, grey)
            label = {"inspection_id": part["id"], "verdict": verdict, "operator": "Aya"}
            api.post("/v1/feedback", json=label).raise_for_status()
        asked = api.post("/v1/recipes/cap/trainings", json={"by": "eva", "reason": "dents"})
        asked.raise_for_status()
        database = open_database(settings.database_url)
        clock = itertools.count(step=2 * SILENCE.total_seconds())
        beats = trainings.Beats(lambda: next(clock))
        for _ in range(MOST_ATTEMPTS):
            with Session(database) as session, session.begin():
                assert trainings.take(session, "killed", beats.lost(session))
                beats.lost(session)
        with Session(database) as session, session.begin():
            assert trainings.take(session, "next", beats.lost(session)) is None
        database.dispose()
        page = open_page(context, api)
        go(page, "training")
        training = page.locator(".training.panel")
        expect(training.locator(".role")).to_have_text("failed")
        expect(training).to_contain_text("ended 3 times")
        expect(page.locator(".estimate")).to_contain_text("No worker is running")
        training.get_by_role("button", name="Try again").click()
        expect(page.locator(".training.panel").first.locator(".role")).to_have_text("waits")


# The part that is shown; '' once the queue cannot be read, null until something is shown again.
HEAD = """() => {
    if (!document.querySelector('.work').hidden) return document.querySelector('.head').textContent;
    return document.querySelector('.empty').textContent.includes('cannot be read') ? '' : null;
}"""


def head(page):
    """The part that is shown, or nothing once the queue cannot be read."""
    shown = page.wait_for_function(
        f"() => {{ const is = ({HEAD})(); return is !== null && [is]; }}"
    )
    return shown.json_value()[0]


def test_labels_wait_here_while_the_disk_is_full(settings, context):
    full = False

    def limit(connection, record, proxy):
        """SQLite's own error of a full disk, which has no other switch."""
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages if full else 2**30}")

    event.listen(Engine, "checkout", limit)
    try:
        with served(settings) as api:
            parts = [inspect(api, 125, part_id=f"d{number}") for number in range(40)]
            page = open_page(context, api)
            page.goto(f"{api.base_url}#/review")
            expect(page.locator(".waiting")).to_have_text("40 waiting")
            full = True
            given = 0
            while shown := head(page):  # as long as there is room for who holds which part
                page.keyboard.press("n")
                given += 1
                page.wait_for_function(f"was => ({HEAD})() !== was", arg=shown)
            assert given > 5
            waits = page.get_by_role("alert").filter(has_text="wait to be sent")
            expect(waits).to_have_count(1)
            expect(waits).to_contain_text("The disk is full")
            full = False
            page.wait_for_function(
                "() => localStorage.getItem('kizu.labels') === '[]'", timeout=60_000
            )
            counts = [api.get(f"/v1/inspections/{part['id']}/feedback").json() for part in parts]
            assert sum(len(said) for said in counts) == given
            assert max(len(said) for said in counts) == 1
            expect(waits).to_have_count(0)
            expect(page.locator(".head")).to_be_visible()  # and the queue goes on
    finally:
        event.remove(Engine, "checkout", limit)


def test_a_verdict_that_is_not_stored_is_shown_as_such(disk, serve, context):
    api = serve(disk_full="answer")
    page = open_page(context, api)
    inspect(api, 50)
    expect(page.locator(".huge")).to_have_text("ok")
    disk.fill()
    inspect(api, 200, part_id="full")
    expect(page.locator(".huge")).to_have_text("ng")
    expect(page.locator(".last")).to_contain_text("Not stored: the disk is full.")
    expect(page.locator(".last img")).to_have_count(0)
    expect(page.locator(".strip li")).to_have_count(2)
    expect(page.locator(".strip a")).to_have_count(1)
