"""Every change of what decides is in a log that nobody can change unseen."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from service.app import create_app
from service.cli import app as commands
from service.engine import FakeEngine
from service.gate import CSRF_HEADER
from service.settings import Settings
from service.store import accounts, audit
from service.store.audit import AuditError, acts
from service.store.database import open_database
from service.store.tables import User
from tests.grey_parts import PNG, image, write_version

PASSWORD = "three odd words"
START = "0" * 64


@pytest.fixture
def database(database_url):
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def closed(database, database_url, tmp_path):
    """A service that Eva, an admin, may change."""
    with Session(database) as session, session.begin():
        accounts.add_user(session, "Eva", "admin", PASSWORD)
    write_version(tmp_path / "store")
    settings = Settings(
        store=tmp_path / "store", data=tmp_path / "data", database=database_url, access="closed"
    )
    with TestClient(create_app(settings, open_engine=lambda bundle: FakeEngine())) as client:
        session = client.post("/v1/session", json={"name": "Eva", "password": PASSWORD}).json()
        client.headers[CSRF_HEADER] = session["csrf"]
        yield client


def users(database, *names):
    for name in names:
        with Session(database) as session, session.begin():
            accounts.add_user(session, name, "operator", PASSWORD)


def checked(database, head=None):
    with Session(database) as session:
        return audit.verify(session, head)


def test_what_is_changed_is_logged_with_who_did_it(closed, database):
    part = closed.post("/v1/inspect", content=image(125), headers=PNG).json()
    label = {"inspection_id": part["id"], "verdict": "ng", "operator": "x", "comment": "a scratch"}
    assert closed.post("/v1/feedback", json=label).status_code == 201
    lines = {"bundle_version": 1, "review": 90, "ng": 120, "by": "x", "reason": "a drill"}
    assert closed.post("/v1/recipes/cap/thresholds", json=lines).status_code == 201
    found = closed.get("/v1/audit").json()[::-1]
    assert [(one["name"], one["kind"], one["action"], one["subject"]) for one in found] == [
        ("kizu", "process", "users: add", "Eva"),
        ("kizu", "process", "promotions: add", "cap"),  # a recipe's first version
        ("Eva", "user", "feedback: add", part["id"]),
        ("Eva", "user", "threshold_revisions: add", "cap"),
    ]
    assert found[2]["details"]["comment"] == "a scratch"
    assert (found[3]["details"]["review"], found[3]["details"]["reason"]) == (90, "a drill")
    assert closed.get("/v1/audit", params={"before": 2, "limit": 5}).json() == found[:1]
    assert checked(database) == (4, found[3]["digest"])


def test_no_secret_is_in_it(database):
    with Session(database) as session, session.begin():
        accounts.add_user(session, "Eva", "operator", PASSWORD)
        key = accounts.add_key(session, "line 3", "camera")
    with Session(database) as session, session.begin():
        accounts.change_user(session, "Eva", password="another three", role="engineer")
        hashed = session.get_one(User, "Eva").password
    with Session(database) as session:
        entries = audit.page(session, None, 10)
    said = " ".join(entry.details for entry in entries)
    for secret in (PASSWORD, key, accounts.digest(key), hashed):
        assert secret not in said
    assert json.loads(entries[0].details) == {"password": "changed", "role": "engineer"}


def test_what_is_not_committed_is_not_logged(database):
    with Session(database) as session:
        accounts.add_user(session, "Eva", "operator", PASSWORD)
        session.flush()
        session.rollback()
    assert checked(database) == (0, START)


def test_many_at_once_make_one_chain(database):
    with Session(database) as session, session.begin():
        accounts.add_user(session, "Eva", "operator", PASSWORD)

    def write(number):
        with Session(database) as session, session.begin():
            accounts.add_key(session, f"key {number}", "camera")

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(write, range(40)))
    assert checked(database)[0] == 41


def test_the_database_lets_nobody_change_an_entry(database):
    users(database, "Eva")
    for change in ("UPDATE audit_entries SET name = 'x'", "DELETE FROM audit_entries"):
        with pytest.raises(DBAPIError, match="only appended to"), database.begin() as connection:
            connection.execute(text(change))
    assert checked(database)[0] == 1


def unlock(database):
    """What somebody with the database's own password can do."""
    with database.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("DROP TRIGGER audit_append_only ON audit_entries"))
        else:
            connection.execute(text("DROP TRIGGER audit_no_update"))
            connection.execute(text("DROP TRIGGER audit_no_delete"))


@pytest.mark.parametrize(
    "column", ["name", "kind", "role", "action", "subject", "details", "previous", "created_at"]
)
def test_an_entry_that_was_changed_is_found(database, column):
    users(database, "Eva", "Ken", "Aya")
    unlock(database)
    value = "2026-01-01 00:00:00.000000" if column == "created_at" else "x"
    with database.begin() as connection:
        change = f"UPDATE audit_entries SET {column} = '{value}' WHERE number = 2"
        connection.execute(text(change))
    with pytest.raises(AuditError, match="Entry 2 is not what was written"):
        checked(database)


def test_an_entry_that_was_taken_out_is_found(database):
    users(database, "Eva", "Ken", "Aya")
    unlock(database)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM audit_entries WHERE number = 2"))
    with pytest.raises(AuditError, match="Entry 2 is missing"):
        checked(database)


def test_who_noted_the_head_sees_that_the_log_was_cut_off(database):
    users(database, "Eva", "Ken")
    number, digest = checked(database)
    users(database, "Aya")
    assert checked(database, f"{number}:{digest}")[0] == 3
    unlock(database)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM audit_entries WHERE number > 1"))
    assert checked(database)[0] == 1
    with pytest.raises(AuditError, match="cut off"):
        checked(database, f"{number}:{digest}")


def test_the_command_line_acts_in_the_name_of_who_is_logged_in_there(
    database, database_url, tmp_path, monkeypatch
):
    monkeypatch.setenv("LOGNAME", "plant-it")
    here = ["--data", str(tmp_path), "--database", database_url]
    runner = CliRunner()
    assert runner.invoke(commands, ["key", "add", "line 3", *here]).exit_code == 0
    with Session(database) as session:
        [entry] = audit.page(session, None, 10)
    assert (entry.name, entry.kind, entry.subject) == ("plant-it", "command", "line 3")
    said = runner.invoke(commands, ["audit", "verify", *here])
    assert said.stdout == f"1:{entry.digest}\n"
    wrong = runner.invoke(commands, ["audit", "verify", "--head", f"1:{START}", *here])
    assert isinstance(wrong.exception, AuditError)


def test_who_acts_ends_with_the_act(database):
    with acts(audit.PROCESS):
        users(database, "Eva")
    assert audit.acting.get() is audit.PROCESS
