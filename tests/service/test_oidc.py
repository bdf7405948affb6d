"""Logging in by an identity provider: it says who it is, Kizu says what they may."""

from datetime import timedelta

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings, SettingsError
from service.store import accounts
from service.store.database import open_database
from tests.grey_parts import write_version
from tests.identity_provider import identity_provider

HERE = "https://testserver"
# The provider's own, of the library that it stands on.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:authlib")


@pytest.fixture(scope="module")
def provider():
    people = {
        "1": {"preferred_username": "eva", "email": "eva@plant.example"},
        "2": {"preferred_username": "mallory"},
        "3": {"preferred_username": "line"},
        "4": {},
    }
    with identity_provider(people) as address:
        yield address


@pytest.fixture
def settings(tmp_path, provider):
    write_version(tmp_path / "store")
    (tmp_path / "secret").write_text("a secret\n")
    engine = open_database(f"sqlite:///{tmp_path / 'kizu.sqlite3'}")
    with Session(engine) as session, session.begin():
        accounts.add_user(session, "eva", "engineer", None)
        accounts.add_user(session, "line", "camera", None)
    engine.dispose()
    return Settings(
        store=tmp_path / "store", data=tmp_path, oidc_issuer=provider, oidc_client_id="kizu",
        oidc_client_secret=tmp_path / "secret", public_url=HERE,
    )  # fmt: skip


@pytest.fixture
def browser(settings):
    app = create_app(settings, open_engine=lambda bundle: FakeEngine())
    with TestClient(app, base_url=HERE, follow_redirects=False) as browser:
        yield browser


def prove(browser, sub):
    """Log in at the provider; the address that it sends the browser back to."""
    away = browser.get("/v1/session/oidc")
    assert away.status_code == 303
    back = httpx.post(away.headers["location"], data={"sub": sub}, follow_redirects=False)
    address = back.headers["location"]
    assert address.startswith(f"{HERE}/v1/session/oidc/callback?")
    return address


def test_who_the_provider_knows_and_kizu_knows_comes_in(browser):
    told = browser.get("/v1/session").json()
    assert (told["closed"], told["name"], told["provider"]) == (True, None, "/v1/session/oidc")
    back = browser.get(prove(browser, "1"))
    assert (back.status_code, back.headers["location"]) == (303, "/")
    cookie = next(one for one in back.headers.get_list("set-cookie") if "kizu_session" in one)
    assert {"HttpOnly", "Secure", "SameSite=strict"} <= set(cookie.split("; "))
    told = browser.get("/v1/session").json()
    assert (told["name"], told["role"]) == ("eva", "engineer")
    assert browser.get("/v1/recipes").status_code == 200


@pytest.mark.parametrize("sub", ["2", "3"])  # nobody's name here; a camera's
def test_who_kizu_does_not_know_stays_outside(browser, sub):
    back = browser.get(prove(browser, sub))
    assert back.headers["location"] == "/?refused=forbidden"
    assert browser.get("/v1/recipes").status_code == 401


def test_who_the_provider_has_no_name_for_stays_outside(browser):
    assert browser.get(prove(browser, "4")).headers["location"] == "/?refused=not-logged-in"


def test_another_claim_can_be_the_name(settings):
    engine = open_database(settings.database_url)
    with Session(engine) as session, session.begin():
        accounts.add_user(session, "eva@plant.example", "operator", None)
    engine.dispose()
    app = create_app(
        settings.model_copy(update={"oidc_claim": "email"}),
        open_engine=lambda bundle: FakeEngine(),
    )
    with TestClient(app, base_url=HERE, follow_redirects=False) as browser:
        browser.get(prove(browser, "1"))
        assert browser.get("/v1/session").json()["name"] == "eva@plant.example"


def test_a_code_is_good_once_and_in_its_own_browser_alone(browser, settings):
    address = prove(browser, "1")
    attempt = browser.cookies["kizu_oidc"]
    assert browser.get(address).headers["location"] == "/"
    browser.cookies.clear()
    browser.cookies.set("kizu_oidc", attempt)
    assert browser.get(address).headers["location"] == "/?refused=not-logged-in"
    browser.cookies.clear()
    address = prove(browser, "1")
    browser.cookies.clear()
    assert browser.get(address).headers["location"] == "/?refused=not-logged-in"
    assert browser.get("/v1/recipes").status_code == 401


def test_a_code_that_somebody_else_got_is_of_no_use(browser):
    """The attacker's code in the victim's browser, and the other way round."""
    theirs = prove(browser, "1").partition("code=")[2].partition("&")[0]
    browser.cookies.clear()
    mine = prove(browser, "1")
    state = httpx.URL(mine).params["state"]
    back = browser.get(f"/v1/session/oidc/callback?code={theirs}&state={state}")
    assert back.headers["location"] == "/?refused=not-logged-in"


def test_a_provider_that_is_away_is_told_as_such(settings):
    away = settings.model_copy(update={"oidc_issuer": "http://localhost:9"})
    app = create_app(away, open_engine=lambda bundle: FakeEngine())
    with TestClient(app, follow_redirects=False) as browser:
        answer = browser.get("/v1/session/oidc")
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:kizu:problem:provider-failure"


def test_a_password_opens_nothing_where_there_is_none(browser):
    for password in ("", "x"):
        asked = {"name": "eva", "password": password}
        assert browser.post("/v1/session", json=asked).status_code in (401, 422)


def test_without_a_provider_there_is_nowhere_to_go(settings):
    without = settings.model_copy(update={"oidc_issuer": ""})
    app = create_app(without, open_engine=lambda bundle: FakeEngine())
    with TestClient(app, follow_redirects=False) as browser:
        assert browser.get("/v1/session").json()["provider"] is None
        assert browser.get("/v1/session/oidc").status_code == 404
        assert browser.get("/v1/session/oidc/callback").status_code == 404


@pytest.mark.parametrize(
    "fields",
    [
        {"oidc_issuer": "http://idp.example"},
        {"oidc_client_id": ""},
        {"public_url": ""},
        {"oidc_client_secret": None},
    ],
)
def test_half_a_configuration_is_none(settings, fields):
    app = create_app(settings.model_copy(update=fields), open_engine=lambda bundle: FakeEngine())
    with pytest.raises(SettingsError), TestClient(app):
        pass


def test_words_that_are_too_old_do_not_count(browser, monkeypatch):
    address = prove(browser, "1")
    monkeypatch.setattr("service.oidc._LEEWAY_S", -timedelta(days=2).total_seconds())
    assert browser.get(address).headers["location"] == "/?refused=not-logged-in"
