"""A recipe in one file, and on another computer."""

import hashlib
import zipfile

import pytest
from sqlalchemy import create_engine
from starlette.testclient import TestClient

from models.bundle import open_bundle
from service.app import create_app
from service.backup import BackupError, back_up, restore
from service.engine import FakeEngine
from service.identity import Identity
from service.settings import Settings
from service.store.audit import acts
from service.store.database import open_database
from service.store.local_blobs import LocalBlobs
from tests.grey_parts import PNG, image, write_version
from tests.service.test_exports import client as client


@pytest.fixture
def backup(client, database_url, tmp_path):
    """Of a recipe with parts, labels, thresholds, settings, and two versions."""
    for reason in ("first", "second"):
        asked = {"settings": {"mm_per_pixel": 0.5}, "by": "eva", "reason": reason}
        client.post("/v1/recipes/cap/revisions", json=asked).raise_for_status()
    client.post("/v1/inspect?part_id=last", content=image(80), headers=PNG).raise_for_status()
    lines = {"bundle_version": 1, "review": 90, "ng": 150, "by": "eva", "reason": "a drill"}
    client.post("/v1/recipes/cap/thresholds", json=lines).raise_for_status()
    write_version(tmp_path / "grey", 2)
    engine = create_engine(database_url)
    path = tmp_path / "cap.kizu"
    missing = back_up(
        engine, LocalBlobs(tmp_path / "data" / "blobs"), tmp_path / "grey", "cap", path
    )
    engine.dispose()
    assert missing == 0
    return path


@pytest.fixture
def elsewhere(tmp_path):
    """Another computer: its store, data and database."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    settings = Settings(store=place / "store", data=place / "data")
    settings.data.mkdir()
    return settings


def restored(settings, file):
    engine = open_database(settings.database_url)
    try:
        return restore(engine, LocalBlobs(settings.data / "blobs"), settings.store, file)
    finally:
        engine.dispose()


def all_of(client):
    items = client.get("/v1/inspections").json()["items"]
    trails = [client.get(f"/v1/inspections/{item['id']}/trail").json() for item in items]
    for trail in trails:
        if trail["recipe_revision"]:
            trail["recipe_revision"]["number"] = None  # counted anew
    return trails, client.get("/v1/recipes/cap").json()["thresholds"]


def test_a_recipe_moves_to_another_computer_whole(client, backup, elsewhere):
    before = all_of(client)
    assert restored(elsewhere, backup) == "cap"
    with TestClient(create_app(elsewhere, open_engine=lambda bundle: FakeEngine())) as there:
        assert all_of(there) == before
        for trail in before[0]:
            path = trail["inspection"]["image"]
            assert there.get(path).content == client.get(path).content
        assert there.get("/v1/recipes/cap").json()["versions"] == [1, 2]
        assert (
            there.get("/v1/review").json()["waiting"] == client.get("/v1/review").json()["waiting"]
        )
    open_bundle(elsewhere.store / "cap" / "2")


def test_restoring_twice_changes_nothing(client, backup, elsewhere):
    restored(elsewhere, backup)
    restored(elsewhere, backup)
    with TestClient(create_app(elsewhere, open_engine=lambda bundle: FakeEngine())) as there:
        assert all_of(there) == all_of(client)
        assert len(there.get("/v1/recipes/cap/revisions").json()) == 2


def test_what_is_there_stays(backup, elsewhere):
    write_version(elsewhere.store, 1, recipe="lid")
    settings = {"settings": {"number": 3}, "by": "bo", "reason": "here"}
    with TestClient(create_app(elsewhere, open_engine=lambda bundle: FakeEngine())) as there:
        there.post("/v1/recipes/lid/revisions", json=settings).raise_for_status()
        there.post("/v1/inspect", content=image(50), headers=PNG).raise_for_status()
    restored(elsewhere, backup)
    with TestClient(create_app(elsewhere, open_engine=lambda bundle: FakeEngine())) as there:
        assert len(there.get("/v1/inspections?recipe=lid").json()["items"]) == 1
        trail = there.get("/v1/inspections?part_id=last").json()["items"][0]["id"]
        found = there.get(f"/v1/inspections/{trail}/trail").json()["recipe_revision"]
        assert found["reason"] == "second"


def broken(backup, tmp_path, change):
    """The same archive with some of its content changed."""
    out = tmp_path / "broken.kizu"
    with zipfile.ZipFile(backup) as whole, zipfile.ZipFile(out, "w") as archive:
        for name in whole.namelist():
            content = change(name, whole.read(name))
            if content is not None:
                archive.writestr(name, content)
    return out


BROKEN = {
    "an image": lambda name, data: data[:-1] if name.startswith("blobs/") else data,
    "a model": lambda name, data: data + b"x" if name.endswith("model.onnx") else data,
    "no rows": lambda name, data: None if name == "rows/feedback.jsonl" else data,
    "no head": lambda name, data: None if name == "kizu-backup.json" else data,
    "another format": lambda name, data: b'{"format": 9}' if name == "kizu-backup.json" else data,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_whole_changes_nothing(backup, elsewhere, tmp_path, name):
    from models.errors import KizuError

    with pytest.raises(KizuError):
        restored(elsewhere, broken(backup, tmp_path, BROKEN[name]))
    assert not (elsewhere.store / "cap").exists()
    with TestClient(create_app(elsewhere, open_engine=lambda bundle: FakeEngine())) as there:
        assert there.get("/v1/inspections").json()["items"] == []


def test_a_truncated_file_is_refused(backup, elsewhere):
    backup.write_bytes(backup.read_bytes()[:-100])
    with pytest.raises(BackupError, match="not a whole backup"):
        restored(elsewhere, backup)


def test_another_version_of_the_same_number_is_not_overwritten(backup, elsewhere):
    write_version(elsewhere.store, 1, method="paper")
    with pytest.raises(BackupError, match="is another one here"):
        restored(elsewhere, backup)


def test_what_is_no_longer_kept_is_counted(client, tmp_path, database_url):
    [blob] = (
        path
        for path in (tmp_path / "data" / "blobs").rglob("*")
        if path.is_file() and path.read_bytes() == image(50)
    )
    blob.unlink()
    engine = create_engine(database_url)
    blobs = LocalBlobs(tmp_path / "data" / "blobs")
    assert back_up(engine, blobs, tmp_path / "grey", "cap", tmp_path / "less.kizu") == 1
    engine.dispose()


def test_a_backup_is_of_one_moment(client, tmp_path, database_url, elsewhere):
    def go_on(said):
        """While it is written, a part comes and is labelled, and the recipe is changed."""
        asked = {"settings": {"mm_per_pixel": 0.5}, "by": "eva", "reason": said}
        client.post("/v1/recipes/cap/revisions", json=asked).raise_for_status()
        part = client.post("/v1/inspect", content=image(90), headers=PNG).json()["id"]
        label = {"inspection_id": part, "verdict": "ng", "operator": "bo"}
        client.post("/v1/feedback", json=label).raise_for_status()

    parts = len(client.get("/v1/inspections").json()["items"])
    engine = create_engine(database_url)
    path = tmp_path / "cap.kizu"
    blobs = LocalBlobs(tmp_path / "data" / "blobs")
    assert back_up(engine, blobs, tmp_path / "grey", "cap", path, go_on) == 0
    engine.dispose()
    restored(elsewhere, path)
    with TestClient(create_app(elsewhere, open_engine=lambda bundle: FakeEngine())) as there:
        assert len(there.get("/v1/inspections").json()["items"]) == parts


def test_the_log_says_what_was_restored_by_whom(client, backup, elsewhere):
    with acts(Identity("eva", "admin", "command")):
        restored(elsewhere, backup)
        restored(elsewhere, backup)
    with TestClient(create_app(elsewhere, open_engine=lambda bundle: FakeEngine())) as there:
        entries = there.get("/v1/audit").json()
        second, first = (one for one in entries if one["kind"] == "command")
        assert [entry["name"] for entry in (first, second)] == ["eva", "eva"]
        assert (first["action"], first["subject"]) == ("backup: restore", "cap")
        details = first["details"]
        assert details["sha256"] == hashlib.sha256(backup.read_bytes()).hexdigest()
        parts = len(client.get("/v1/inspections").json()["items"])
        assert (details["file"], details["rows"]["inspections"]) == ("cap.kizu", parts)
        assert second["details"]["rows"] == {}


def test_what_contradicts_what_is_here_is_refused_whole(client, tmp_path, database_url, elsewhere):
    key = {"idempotency-key": "a part"}
    client.post("/v1/inspect", content=image(70), headers=PNG | key).raise_for_status()
    engine = create_engine(database_url)
    path = tmp_path / "cap.kizu"
    back_up(engine, LocalBlobs(tmp_path / "data" / "blobs"), tmp_path / "grey", "cap", path)
    engine.dispose()
    write_version(elsewhere.store, 1, recipe="lid")
    with TestClient(create_app(elsewhere, open_engine=lambda bundle: FakeEngine())) as there:
        there.post("/v1/inspect", content=image(50), headers=PNG | key).raise_for_status()
        with pytest.raises(BackupError, match="does not fit"):
            restored(elsewhere, path)
        assert len(there.get("/v1/inspections").json()["items"]) == 1
        assert [entry["action"] for entry in there.get("/v1/audit").json()] == ["promotions: add"]


def test_nothing_is_backed_up_over_a_file_or_from_nowhere(client, backup, tmp_path, database_url):
    engine = create_engine(database_url)
    blobs = LocalBlobs(tmp_path / "data" / "blobs")
    with pytest.raises(BackupError, match="exists already"):
        back_up(engine, blobs, tmp_path / "grey", "cap", backup)
    with pytest.raises(BackupError, match="no recipe"):
        back_up(engine, blobs, tmp_path / "grey", "other", tmp_path / "other.kizu")
    engine.dispose()
