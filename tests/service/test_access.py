"""Who may come in, and who may do what."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import product

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from service import gate
from service.accounts_cli import key_app, user_app
from service.app import create_app
from service.client import Kizu, Refused
from service.engine import FakeEngine
from service.errors import NotLoggedIn, TooMany
from service.identity import ROLES
from service.settings import Settings
from service.store import accounts
from service.store.accounts import AccountError
from service.store.database import open_database
from tests.grey_parts import image, write_version
from tests.listening import listening
from tests.roles import ROLE_OF, operations

PASSWORD = "three odd words"
JPEG = {"content-type": "image/png"}


@pytest.fixture
def settings(tmp_path):
    write_version(tmp_path / "store")
    return Settings(store=tmp_path / "store", data=tmp_path / "data", access="closed")


@pytest.fixture
def database(settings):
    settings.data.mkdir()
    engine = open_database(settings.database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def keys(database):
    with Session(database) as session, session.begin():
        return {role: accounts.add_key(session, f"a {role}", role) for role in ROLES}


@contextmanager
def served(settings):
    with TestClient(create_app(settings, open_engine=lambda bundle: FakeEngine())) as client:
        yield client


@pytest.fixture
def closed(settings, keys):
    with served(settings) as client:
        yield client


def add_user(database, name, role):
    with Session(database) as session, session.begin():
        accounts.add_user(session, name, role, PASSWORD)


def log_in(client, name, password=PASSWORD):
    return client.post("/v1/session", json={"name": name, "password": password})


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def test_every_role_may_do_what_it_takes_and_nothing_else(closed, keys):
    found = list(operations(closed.get("/openapi.json").json()))
    assert {name for name, _, _ in found} == set(ROLE_OF)
    for (name, method, address), role in product(found, (None, *ROLES)):
        if name == "follow_events" and role not in (None, "camera"):
            continue  # it would not end
        headers = bearer(keys[role]) if role else {}
        status = closed.request(method, address, headers=headers).status_code
        needed = ROLE_OF[name]
        if needed is None:
            assert status != 403, (name, role)
        elif role is None:
            assert status == 401, (name, role)
        elif ROLES.index(role) < ROLES.index(needed):
            assert status == 403, (name, role)
        else:
            assert status not in (401, 403), (name, role)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:8000", 200), ("inspection-3", 200),
        ("192.168.1.10", 200), ("kizu.plant", 200), ("KIZU.plant:8000", 200),
        ("rebound.example", 403), ("127.0.0.1.example", 403), ("plant", 200),
    ],
)  # fmt: skip
def test_an_open_service_is_not_asked_under_a_strangers_name(settings, host, status):
    known = settings.model_copy(
        update={"access": "open", "public_url": "https://kizu.plant", "host": "127.0.0.1"}
    )
    with served(known) as client:
        answer = client.get("/v1/recipes", headers={"host": host})
        assert answer.status_code == status, answer.text


def test_the_console_and_its_health_are_open_to_all(closed):
    for address in ("/", "/app.js", "/health/live", "/metrics", "/docs"):
        assert closed.get(address).status_code == 200, address
    assert closed.get("/v1/session").json() == {
        "closed": True, "name": None, "role": None, "csrf": None, "provider": None,
    }  # fmt: skip


@pytest.mark.parametrize("shown", ["kizu_no", "", "kizu_" + "x" * 43])
def test_a_key_that_opens_nothing_is_refused_also_where_a_cookie_would_do(closed, database, shown):
    add_user(database, "eva", "admin")
    assert log_in(closed, "eva").status_code == 201
    answer = closed.get("/v1/recipes", headers=bearer(shown))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:kizu:problem:not-logged-in"
    assert answer.json()["verdict"] == "error"


def test_nothing_is_read_of_who_is_not_known(settings):
    app = create_app(settings, open_engine=lambda bundle: FakeEngine())
    with listening(app) as address, socket.create_connection(address, timeout=20) as camera:
        camera.sendall(
            b"POST /v1/inspect HTTP/1.1\r\nHost: kizu\r\nContent-Type: image/png\r\n"
            b"Content-Length: 1000000\r\n\r\n"  # and no byte of it
        )
        assert camera.recv(1000).startswith(b"HTTP/1.1 401")


def test_a_user_logs_in_acts_in_their_own_name_and_logs_out(closed, database, keys):
    add_user(database, "eva", "engineer")
    part = closed.post(
        "/v1/inspect", content=image(102), headers=JPEG | bearer(keys["camera"])
    ).json()
    entered = log_in(closed, "eva")
    status = entered.json()
    assert (status["name"], status["role"]) == ("eva", "engineer")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    label = {"inspection_id": part["id"], "verdict": "ng", "operator": "somebody else"}
    page = {gate.CSRF_HEADER: status["csrf"]}
    assert closed.post("/v1/feedback", json=label, headers=page).status_code == 201
    kept = closed.get(f"/v1/inspections/{part['id']}").json()["feedback"]
    assert kept["operator"] == "eva"
    lines = {"bundle_version": 1, "review": 100, "ng": 200, "by": "nobody", "reason": "test"}
    assert closed.post("/v1/recipes/cap/thresholds", json=lines, headers=page).json()["by"] == "eva"
    assert closed.delete("/v1/session", headers=page).status_code == 204
    assert closed.get("/v1/recipes").status_code == 401


def test_a_program_says_in_whose_name_it_acts(closed, keys):
    part = closed.post(
        "/v1/inspect", content=image(102), headers=JPEG | bearer(keys["camera"])
    ).json()
    label = {"inspection_id": part["id"], "verdict": "ng", "operator": "eva"}
    operator = bearer(keys["operator"])
    assert closed.post("/v1/feedback", json=label, headers=operator).status_code == 201
    kept = closed.get(f"/v1/inspections/{part['id']}", headers=operator).json()["feedback"]
    assert kept["operator"] == "eva"


def test_disagreements_are_settled_by_engineers(closed, keys):
    part = closed.post(
        "/v1/inspect", content=image(102), headers=JPEG | bearer(keys["camera"])
    ).json()
    label = {
        "inspection_id": part["id"], "verdict": "ng", "operator": "eva", "desk": "engineer",
    }  # fmt: skip
    claim = {"session": "a-screen-1", "desk": "engineer"}
    for role, labelled, claimed in (("operator", 403, 403), ("engineer", 201, 200)):
        headers = bearer(keys[role])
        assert closed.post("/v1/feedback", json=label, headers=headers).status_code == labelled
        assert closed.post("/v1/review/claims", json=claim, headers=headers).status_code == claimed


def test_another_sites_page_cannot_act_for_who_is_logged_in(closed, database):
    add_user(database, "eva", "engineer")
    csrf = log_in(closed, "eva").json()["csrf"]
    assert closed.get("/v1/recipes").status_code == 200
    claim = {"session": "a-screen-1"}
    for shown in ({}, {gate.CSRF_HEADER: "wrong"}, {gate.CSRF_HEADER: csrf[:-1]}):
        answer = closed.post("/v1/review/claims", json=claim, headers=shown)
        assert answer.status_code == 403
    answer = closed.post("/v1/review/claims", json=claim, headers={gate.CSRF_HEADER: csrf})
    assert answer.status_code == 200


def test_a_log_in_ends_with_its_time(settings, database, keys):
    add_user(database, "eva", "operator")
    with served(settings.model_copy(update={"session_hours": 1e-6})) as client:
        token = log_in(client, "eva").cookies.get(gate.COOKIE)
        client.cookies.set(gate.COOKIE, token)  # a browser would not send it any more
        assert client.get("/v1/recipes").status_code == 401


@pytest.mark.parametrize("change", ["password", "role", "remove"])
def test_who_is_changed_has_to_log_in_again(closed, database, monkeypatch, change):
    monkeypatch.setattr(gate, "_LOOK_EVERY_S", 0.0)
    add_user(database, "eva", "operator")
    log_in(closed, "eva")
    assert closed.get("/v1/recipes").status_code == 200
    with Session(database) as session, session.begin():
        if change == "remove":
            accounts.remove_user(session, "eva")
        elif change == "role":
            accounts.change_user(session, "eva", role="engineer")
        else:
            accounts.change_user(session, "eva", password="another three")
    assert closed.get("/v1/recipes").status_code == 401


def test_wrong_passwords_are_not_tried_for_ever(closed, database):
    add_user(database, "eva", "operator")
    for _ in range(5):
        assert log_in(closed, "eva", "wrong").status_code == 401
    answer = log_in(closed, "eva")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert log_in(closed, "nobody", "wrong").status_code == 401  # another one may still try


def test_whoever_tries_passwords_takes_no_thread_of_the_cameras(closed, keys, monkeypatch):
    """The first try waits; some wait for it, the others are told so, and cameras are answered."""
    begun, going_on = threading.Event(), threading.Event()

    def slow(session, name, password):
        begun.set()
        going_on.wait(120)

    monkeypatch.setattr(accounts, "verified", slow)
    with ThreadPoolExecutor(60) as many:
        tries = [many.submit(log_in, closed, f"name {number}") for number in range(60)]
        try:
            assert begun.wait(60)
            headers = JPEG | bearer(keys["camera"])
            asked = closed.post("/v1/inspect", content=image(50), headers=headers)
            assert asked.status_code == 200
            # Only who is told so at once can be done by now.
            assert next(as_completed(tries, timeout=60)).result().status_code == 429
        finally:
            going_on.set()  # or whoever waits for a password would wait once more, one by one
        assert {one.result().status_code for one in tries} == {401, 429}


def test_of_many_who_log_in_in_one_moment_few_wait(database, monkeypatch):
    """They come before any of them waits, and so before a limit of one at a time knows of them."""
    all_told = threading.Event()
    monkeypatch.setattr(accounts, "verified", lambda *_: all_told.wait(60) and None)
    door = gate.Gate(database, access="closed", host="127.0.0.1", session_hours=1)
    told, tried = [], []

    async def one(number):
        try:
            await door.log_in(f"name {number}", PASSWORD, f"10.0.0.{number}")
        except TooMany:
            told.append(number)
            if len(told) == 51:
                all_told.set()
        except NotLoggedIn:
            tried.append(number)

    async def come():
        await asyncio.gather(*(one(number) for number in range(60)))

    asyncio.run(come())
    assert (len(told), len(tried)) == (51, 9)


def test_a_camera_does_not_log_in(settings, database, keys):
    with Session(database) as session, session.begin():
        accounts.add_user(session, "odd", "camera", PASSWORD)
    with served(settings) as client:
        answer = log_in(client, "odd")
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


def test_a_key_asks_so_often_and_sends_so_much(settings, database):
    with Session(database) as session, session.begin():
        slow = accounts.add_key(session, "slow", "camera", per_second=2)
        small = accounts.add_key(session, "small", "camera", max_bytes=10)
    with served(settings) as client:
        heads = JPEG | bearer(slow)
        found = [client.post("/v1/inspect", content=b"x", headers=heads) for _ in range(4)]
        assert [answer.status_code for answer in found[:2]] == [422, 422]
        assert found[-1].status_code == 429
        assert found[-1].json()["retryable"] is True
        assert found[-1].headers["retry-after"] == "1"
        answer = client.post("/v1/inspect", content=image(9), headers=JPEG | bearer(small))
        assert answer.status_code == 413
        answer = client.post("/v1/inspect", content=iter([b"x"]), headers=JPEG | bearer(small))
        assert answer.status_code == 413


def test_a_rate_fills_up_again():
    now = 0.0
    rate = gate._Rate(2.0, clock=lambda: now)
    rate.take()
    rate.take()
    with pytest.raises(TooMany):
        rate.take()
    now = 0.5
    rate.take()
    with pytest.raises(TooMany):
        rate.take()


def test_a_new_key_and_a_revoked_one_are_noticed(closed, database, keys):
    with Session(database) as session, session.begin():
        new = accounts.add_key(session, "new", "camera")
        accounts.revoke_key(session, "a camera")
    closed.app_state["kizu"].gate._look()  # as every two seconds
    address = "/v1/inspections/x"
    assert closed.get(address, headers=bearer(new)).status_code == 404
    assert closed.get(address, headers=bearer(keys["camera"])).status_code == 401


def test_known_keys_outlive_the_database(closed, keys, monkeypatch):
    def away(session):
        raise OperationalError("select", {}, Exception("away"))

    monkeypatch.setattr(accounts, "keys", away)
    door = closed.app_state["kizu"].gate
    with pytest.raises(OperationalError):
        door._look()
    assert closed.get("/v1/inspections/x", headers=bearer(keys["camera"])).status_code == 404


@pytest.mark.parametrize(
    ("access", "host", "somebody", "closed"),
    [
        ("auto", "127.0.0.1", False, False), ("auto", "localhost", False, False),
        ("auto", "::1", False, False), ("auto", "127.0.0.1", True, True),
        ("auto", "0.0.0.0", False, True), ("auto", "plant.example", False, True),
        ("open", "0.0.0.0", True, False), ("closed", "127.0.0.1", False, True),
    ],
)  # fmt: skip
def test_it_stands_open_on_this_machine_alone(settings, database, access, host, somebody, closed):
    if somebody:
        add_user(database, "eva", "operator")
    asked = settings.model_copy(update={"access": access, "host": host})
    with served(asked) as client:
        assert client.get("/v1/session").json()["closed"] is closed
        assert client.get("/v1/recipes").status_code == (401 if closed else 200)


def test_the_typed_client_shows_a_key(settings, keys):
    app = create_app(settings, open_engine=lambda bundle: FakeEngine())
    with listening(app) as (host, port):
        address = f"http://{host}:{port}"
        with Kizu(address, key=keys["operator"]) as kizu:
            assert [one.recipe_id for one in kizu.list_recipes()] == ["cap"]
        with Kizu(address) as kizu, pytest.raises(Refused) as refused:
            kizu.list_recipes()
        assert refused.value.problem.status == 401
        app.state.live.close()


def command(app, *words, typed=None):
    return CliRunner().invoke(app, [str(word) for word in words], input=typed)


def test_accounts_are_made_on_the_command_line(settings):
    here = "--data", settings.data
    made = command(user_app, "add", "eva", "--role", "operator", *here, typed=f"{PASSWORD}\n")
    assert made.stdout == "eva: operator\n"
    key = command(key_app, "add", "cam 1", "--per-second", "20", *here).stdout.strip()
    assert "20" in command(key_app, "list", *here).stdout
    with served(settings) as client:
        assert client.get("/v1/inspections/x", headers=bearer(key)).status_code == 404
        assert log_in(client, "eva").json()["role"] == "operator"
        assert command(user_app, "role", "eva", "--role", "admin", *here).exit_code == 0
        assert log_in(client, "eva").json()["role"] == "admin"
        words = "password", "eva", *here
        assert command(user_app, *words, typed="another three\n").exit_code == 0
        assert log_in(client, "eva").status_code == 401
    listed = command(user_app, "list", *here).stdout
    assert "eva" in listed
    assert "admin" in listed
    for app, words in ((user_app, ("remove", "eva")), (key_app, ("revoke", "cam 1"))):
        assert command(app, *words, *here).exit_code == 0
    assert "eva" not in command(user_app, "list", *here).stdout
    assert "cam 1" not in command(key_app, "list", *here).stdout


@pytest.mark.parametrize(
    ("app", "words", "typed", "says"),
    [
        (user_app, ("add", "bo", "--role", "operator"), "short\n", "10 characters"),
        (user_app, ("add", "eva", "--role", "operator"), f"{PASSWORD}\n", "already"),
        (user_app, ("add", "c", "--role", "camera"), f"{PASSWORD}\n", "does not log in"),
        (user_app, ("remove", "bo"), None, "no user 'bo'"),
        (key_app, ("add", "a camera"), None, "already"),
        (key_app, ("revoke", "b"), None, "no key 'b'"),
    ],
)
def test_what_cannot_be_says_why(settings, database, keys, app, words, typed, says):
    add_user(database, "eva", "operator")
    done = command(app, *words, "--data", settings.data, typed=typed)
    assert isinstance(done.exception, AccountError)
    assert says in str(done.exception)


def test_no_secret_is_kept(settings, database, keys):
    add_user(database, "eva", "operator")
    with served(settings) as client:
        token = log_in(client, "eva").cookies.get(gate.COOKIE)
    with database.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = b"".join(path.read_bytes() for path in settings.data.iterdir() if path.is_file())
    for secret in (PASSWORD, token, *keys.values()):
        assert secret.encode() not in kept
