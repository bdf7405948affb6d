"""Logging in, and what happens when a session ends in the middle of something."""

import socket

import pytest
from playwright.sync_api import expect
from sqlalchemy import delete
from sqlalchemy.orm import Session

from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from service.store import accounts
from service.store.database import open_database
from service.store.tables import LogIn
from tests.console.test_decisions import go
from tests.grey_parts import inspect
from tests.identity_provider import identity_provider
from tests.listening import listening

PASSWORD = "three odd words"


@pytest.fixture
def database(tmp_path):
    (tmp_path / "data").mkdir()
    engine = open_database(f"sqlite:///{tmp_path / 'data' / 'kizu.sqlite3'}")
    with Session(engine) as session, session.begin():
        accounts.add_user(session, "Eva", "operator", PASSWORD)
        accounts.add_user(session, "Ken", "engineer", PASSWORD)
        engine.key = accounts.add_key(session, "test", "admin")
    yield engine
    engine.dispose()


@pytest.fixture
def api(serve, database):
    """A service that nobody unknown comes into, and a program's key to it."""
    client = serve(access="closed")
    client.headers["authorization"] = f"Bearer {database.key}"
    return client


@pytest.fixture
def page(context, api):
    page = context.new_page()
    page.goto(str(api.base_url))
    return page


def log_in(page, name, password=PASSWORD):
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")


def end_sessions(database):
    with Session(database) as session, session.begin():
        session.execute(delete(LogIn))


def test_one_logs_in_by_keys_alone_and_out_again(page, api):
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.keyboard.press("Escape")  # there is nothing behind it
    expect(page.get_by_role("dialog")).to_be_visible()
    log_in(page, "Eva", "three even words")
    expect(page.get_by_role("alert")).to_have_text("This name and password do not belong together.")
    log_in(page, "Eva")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".user")).to_contain_text("Eva")
    expect(page.locator("#state")).to_have_text("ready")
    page.reload()
    expect(page.locator(".user")).to_contain_text("Eva")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.reload()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_a_label_is_not_lost_where_the_session_ends_meanwhile(page, api, database, monkeypatch):
    part = inspect(api, 125, part_id="p125")
    log_in(page, "Eva")
    go(page, "review")
    expect(page.locator(".head")).to_contain_text("part p125")
    end_sessions(database)
    page.keyboard.press("n")
    expect(page.get_by_role("dialog")).to_contain_text("What you were doing goes on afterwards.")
    expect(page.get_by_label("Password")).to_be_focused()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_function("() => localStorage.getItem('kizu.labels') === '[]'")
    feedback = api.get(f"/v1/inspections/{part['id']}").json()["feedback"]
    assert (feedback["verdict"], feedback["operator"]) == ("ng", "Eva")


def test_a_page_that_was_open_while_another_logged_in_goes_on(page, context, api, database):
    part = inspect(api, 125, part_id="p125")
    log_in(page, "Eva")
    go(page, "review")
    expect(page.locator(".head")).to_contain_text("part p125")
    other = context.new_page()
    other.goto(str(api.base_url))
    expect(other.locator(".user")).to_contain_text("Eva")
    other.get_by_role("button", name="Log out").click()
    log_in(other, "Ken")
    expect(other.locator(".user")).to_contain_text("Ken")
    page.keyboard.press("n")
    page.wait_for_function("() => localStorage.getItem('kizu.labels') === '[]'")
    feedback = api.get(f"/v1/inspections/{part['id']}").json()["feedback"]
    assert feedback["operator"] == "Ken"
    expect(page.locator(".user")).to_contain_text("Ken")


def test_an_operator_sees_that_lines_are_drawn_by_engineers(page, api, complaints_of):
    inspect(api, 125)
    log_in(page, "Eva")
    complaints = complaints_of(page)
    go(page, "thresholds")
    expect(page.locator(".may-look")).to_have_text(
        "You can look at this; to change it takes an engineer."
    )
    page.get_by_role("button", name="Log out").click()
    log_in(page, "Ken")
    expect(page.locator(".user")).to_contain_text("Ken")
    go(page, "line")
    go(page, "thresholds")
    expect(page.locator(".view.thresholds")).to_be_visible()
    expect(page.locator(".may-look")).to_have_count(0)
    assert [line for line in complaints if "401" not in line] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning:authlib")  # the provider's own
def test_one_logs_in_by_the_account_of_the_plant(store, database, context, tmp_path):
    (tmp_path / "secret").write_text("a secret")
    with Session(database) as session, session.begin():
        accounts.add_user(session, "Aki", "operator", None)
    people = {"1": {"preferred_username": "Aki"}, "2": {"preferred_username": "Mallory"}}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with identity_provider(people) as issuer:
        settings = Settings(
            store=store, data=tmp_path / "data", oidc_issuer=issuer, oidc_client_id="kizu",
            oidc_client_secret=tmp_path / "secret", public_url=f"http://127.0.0.1:{port}",
        )  # fmt: skip
        app = create_app(settings, open_engine=lambda bundle: FakeEngine())
        with listening(app, port):
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{port}")
            for who in ("2", "1"):
                page.get_by_role("link", name="account of the plant").click()
                page.get_by_placeholder("sub").fill(who)
                page.get_by_role("button", name="Authorize").click()
                if who == "2":
                    told = page.get_by_role("alert")
                    expect(told).to_contain_text("This account is not known here")
            expect(page.locator(".user")).to_contain_text("Aki")
            assert page.url == f"http://127.0.0.1:{port}/"
