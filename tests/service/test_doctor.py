"""What `kizu doctor` sees, and what `kizu support` takes along."""

import json
import os
import subprocess
import sys
import zipfile
from ctypes.util import find_library
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text, update
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from models.bundle import MODEL
from service import doctor
from service.cli import app
from service.doctor import examine
from service.settings import Settings
from service.store import accounts
from service.store.database import DatabaseError, migrate, open_database
from service.store.tables import Inspection


@pytest.fixture
def settings(store, tmp_path, database_url):
    return Settings(store=store, data=tmp_path / "data", database=database_url, device="cpu")


def found(settings, subject):
    return [(one.health, one.text) for one in examine(settings) if one.subject == subject]


def test_a_computer_that_can_do_it_is_told_so(settings):
    open_database(settings.database_url).dispose()
    findings = list(examine(settings))
    assert {one.subject for one in findings} == {
        "disk", "database", "clock", "bundles", "limits", "access",
    }  # fmt: skip
    assert not [one for one in findings if one.health == "wrong"]
    assert "agrees with its training on CPUExecutionProvider" in found(settings, "bundles")[0][1]


def test_object_stores_are_tried(settings, bucket):
    shared = settings.model_copy(
        update={"blobs": f"{bucket.address}/images", "bundles": "s3://no-such-bucket/bundles"}
    )
    [(health, text), (lacking, why)] = found(shared, "objects")
    assert health in ("ok", "warning")  # a stand-in may be slow
    assert text.startswith(f"{shared.blobs}: an object is safe after ")
    assert lacking == "wrong"
    assert "does not exist" in why


def test_a_bundle_that_was_tampered_with_is_found(settings):
    model = settings.store / "cap" / "1" / MODEL
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    [(health, text)] = found(settings, "bundles")
    assert health == "wrong"
    assert "differs from the hash" in text


def test_a_service_that_would_grow_is_told_how_not_to(settings):
    library = find_library("jemalloc")
    said = [text for _, text in found(settings, "limits")]
    assert any("LD_PRELOAD=libjemalloc.so.2" in text for text in said)
    if library is None:
        pytest.skip("needs jemalloc: apt-get install libjemalloc2")
    program = "from service.doctor import _limits; print([one.text for one in _limits()])"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"LD_PRELOAD": library},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "memory by jemalloc" in done.stdout


def test_an_empty_store_is_no_reason_to_stop(settings, tmp_path):
    empty = settings.model_copy(update={"store": tmp_path / "empty"})
    assert found(empty, "bundles")[0][0] == "warning"
    assert found(empty, "database")[0][0] == "ok"


def test_a_database_that_is_not_there_is_found_and_the_rest_is_looked_at(settings):
    away = settings.model_copy(update={"database": "postgresql+psycopg://kizu@127.0.0.1:9/kizu"})
    assert [health for health, _ in found(away, "database")] == ["wrong"]
    assert found(away, "bundles")[0][0] == "ok"


def test_where_no_database_is_none_is_made(settings, tmp_path):
    assert found(settings, "database") == [("ok", "there is none yet: kizu serve makes it")]
    assert list(tmp_path.glob("**/*.sqlite3")) == []


def test_an_older_database_is_told_and_left_as_it_is(settings):
    engine = create_engine(settings.database_url)
    migrate(engine, "0006")
    engine.dispose()
    for _ in range(2):
        [(health, text)] = found(settings, "database")
        assert (health, "of an older Kizu" in text) == ("warning", True)
        assert found(settings, "access") == []


def test_a_newer_database_is_not_opened(settings):
    engine = open_database(settings.database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    [(health, said)] = found(settings, "database")
    assert (health, "of a newer Kizu" in said) == ("wrong", True)
    with pytest.raises(DatabaseError, match="of a newer Kizu"):
        open_database(settings.database_url)


def test_a_damaged_file_of_sqlite_is_found(settings, tmp_path):
    file = tmp_path / "damaged.sqlite3"
    own = settings.model_copy(update={"database": f"sqlite:///{file}"})
    open_database(own.database_url).dispose()
    assert found(own, "database")[0][0] == "ok"
    whole = file.read_bytes()
    file.write_bytes(whole[:8192] + b"x" * (len(whole) - 8192))
    assert "wrong" in [health for health, _ in found(own, "database")]


def test_a_clock_that_was_set_back_is_found(client, settings, good_part):
    client.post("/v1/inspect", content=good_part, headers={"content-type": "image/jpeg"})
    assert found(settings, "clock")[0][0] == "ok"
    engine = open_database(settings.database_url)
    if engine.dialect.name == "sqlite":
        with Session(engine) as session, session.begin():
            row = session.query(Inspection).one()
            later = row.created_at + timedelta(hours=1)
            session.execute(update(Inspection).values(created_at=later))
        assert found(settings, "clock")[0][0] == "warning"
    engine.dispose()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"host": "0.0.0.0", "access": "open"}, "open to all"),
        ({"host": "0.0.0.0"}, "nobody can come in yet"),
    ],
)
def test_a_door_that_stands_open_or_that_nobody_can_open_is_told(settings, changes, says):
    [(health, text)] = found(settings.model_copy(update=changes), "access")
    assert health == "warning"
    assert says in text


def test_a_full_disk_is_told(settings, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_FREE", 10**18)
    assert ("warning", "make room") in [
        (health, text.rpartition("; ")[2].partition(":")[0])
        for health, text in found(settings, "disk")
    ]


def test_the_command_ends_with_an_error_where_something_is_wrong(settings):
    runner = CliRunner()
    here = ["--store", str(settings.store), "--data", str(settings.data)]
    here += ["--database", settings.database_url, "--device", "cpu"]
    assert runner.invoke(app, ["doctor", *here]).exit_code == 0
    (settings.store / "cap" / "1" / MODEL).write_bytes(b"")
    done = runner.invoke(app, ["doctor", *here])
    assert done.exit_code == 1
    assert "differs from the hash" in " ".join(done.stdout.split())


def test_what_helps_holds_no_secret_and_no_part(client, settings, good_part, tmp_path):
    headers = {"content-type": "image/jpeg"}
    shot = client.post("/v1/inspect?part_id=secret-part", content=good_part, headers=headers)
    engine = open_database(settings.database_url)
    with Session(engine) as session, session.begin():
        accounts.add_user(session, "Eva Secret", "admin", "three odd words")
        key = accounts.add_key(session, "line 3", "camera")
    engine.dispose()
    out = tmp_path / "support.zip"
    done = CliRunner().invoke(
        app, ["support", str(out), "--store", str(settings.store), "--data", str(settings.data),
              "--database", settings.database_url],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(out) as archive:
        assert set(archive.namelist()) == {
            "doctor.txt", "settings.json", "versions.json", "rows.json", "bundles/cap/1.json",
            "metrics.txt",
        }  # fmt: skip
        whole = b"".join(archive.read(name) for name in archive.namelist())
        assert json.loads(archive.read("rows.json"))["inspections"] == 1
    for secret in ("secret-part", "Eva Secret", key, shot.json()["id"]):
        assert secret.encode() not in whole
    assert good_part not in whole


def test_a_databases_password_is_not_taken_along(settings, tmp_path):
    url = "postgresql+psycopg://kizu:hushhush@127.0.0.1:9/kizu"
    out = tmp_path / "support.zip"
    done = CliRunner().invoke(
        app, ["support", str(out), "--store", str(settings.store), "--data", str(settings.data),
              "--database", url],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(out) as archive:
        whole = b"".join(archive.read(name) for name in archive.namelist())
    assert b"hushhush" not in whole
