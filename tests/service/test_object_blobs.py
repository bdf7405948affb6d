"""Images in an object store: the same promises, also while it does not answer."""

import hashlib
import os
import signal
import time
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from service.errors import StorageUnavailable
from service.settings import Settings, SettingsError
from service.store import object_blobs
from service.store.local_blobs import LocalBlobs
from service.store.object_blobs import ObjectBlobs
from service.store.objects import ObjectStore
from service.store.place import open_blobs
from tests.waiting import until

PATIENCE_S = object_blobs._PATIENCE_S
DAY = timedelta(days=1).total_seconds()


def needed(sha256):
    return True


def not_needed(sha256):
    return False


@pytest.fixture
def store(bucket):
    return ObjectStore(bucket.address)


@pytest.fixture
def blobs(store, tmp_path, monkeypatch):
    monkeypatch.setattr(object_blobs, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(object_blobs, "_ASK_EVERY_S", 0.05)
    made = ObjectBlobs(store, LocalBlobs(tmp_path / "blobs"))
    yield made
    made.close()


def here(tmp_path):
    return [path.name for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


def test_what_is_kept_is_in_the_store_alone_by_its_content(blobs, store, tmp_path):
    sha256 = blobs.put(b"image")
    assert sha256 == hashlib.sha256(b"image").hexdigest()
    assert blobs.get(sha256) == b"image"
    assert b"".join(blobs.open(sha256).pieces()) == b"image"
    assert blobs.address(sha256).endswith(f"/plant/{sha256[0]}/{sha256}")
    assert [(blob.sha256, blob.size) for blob in blobs.all()] == [(sha256, 5)]
    assert here(tmp_path) == []
    assert blobs.get("0" * 64) is None
    assert blobs.open("0" * 64) is None


def test_what_was_not_written_or_is_given_up_cannot_be_kept(blobs):
    with pytest.raises(ValueError, match="written"):
        blobs.draft(b"image").keep()
    draft = blobs.draft(b"image")
    draft.write()
    draft.discard()
    with pytest.raises(ValueError, match="written"):
        draft.keep()


def test_while_the_store_is_away_files_wait_and_are_brought_later(blobs, bucket, tmp_path):
    before = blobs.put(b"before")
    blobs.start()
    bucket.cable.pull()
    sha256 = blobs.put(b"meanwhile")
    assert blobs.put(b"meanwhile, too")
    assert blobs.get(sha256) == b"meanwhile"
    assert blobs.address(sha256) == str(tmp_path / "blobs" / sha256[:2] / sha256)
    with pytest.raises(StorageUnavailable, match="is away"):
        blobs.get(before)
    assert "2 files wait" in blobs.problem
    bucket.cable.plug()
    until(lambda: not blobs.waiting)
    assert blobs.problem is None
    assert here(tmp_path) == []
    assert blobs.get(sha256) == b"meanwhile"
    assert blobs.get(before) == b"before"


def test_a_store_that_says_nothing_is_away_soon(blobs, store_process, monkeypatch):
    blobs.start()
    blobs.put(b"before")
    monkeypatch.setattr(object_blobs, "_PATIENCE_S", PATIENCE_S)
    os.kill(store_process.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        with capture_logs() as lines:
            blobs.put(b"meanwhile")
        assert time.monotonic() - started < 2 * PATIENCE_S
        started = time.monotonic()
        blobs.put(b"meanwhile, too")
        assert time.monotonic() - started < PATIENCE_S  # it is not asked again
        (said,) = (one["error"] for one in lines if one["event"] == "the object store is away")
        assert f"no answer in {PATIENCE_S:g} s" in said
        assert "s3://" not in blobs.problem  # where it is stays in the log
    finally:
        os.kill(store_process.pid, signal.SIGCONT)
    until(lambda: not blobs.waiting)


def test_what_waited_when_the_power_went_is_brought_by_the_next(store, tmp_path):
    sha256 = LocalBlobs(tmp_path / "blobs").put(b"of an earlier time")
    later = ObjectBlobs(store, LocalBlobs(tmp_path / "blobs"))
    later.start()
    try:
        until(lambda: not later.waiting)
    finally:
        later.close()
    assert store.get(f"{sha256[0]}/{sha256}") == b"of an earlier time"


def test_a_command_that_cannot_write_says_so(blobs, bucket, tmp_path):
    bucket.cable.pull()
    with pytest.raises(StorageUnavailable):
        blobs.put(b"image")
    assert here(tmp_path) == []


def test_what_is_removed_lies_aside_for_a_day(blobs, store):
    sha256 = blobs.put(b"old")
    assert blobs.remove_unless(sha256, needed) == 0
    assert blobs.remove_unless(sha256, not_needed) == 3
    assert blobs.get(sha256) is None
    assert blobs.remove_unless(sha256, not_needed) == 0
    now = time.time()
    blobs.tidy(now + 0.9 * DAY, not_needed)
    assert len(list(store.all("removed"))) == 1
    blobs.tidy(now + 1.1 * DAY, not_needed)
    assert list(store.all("removed")) == []
    assert blobs.get(sha256) is None


def test_what_another_service_enters_while_it_is_removed_is_brought_back(blobs):
    """Its row names a content that was here already, as an old one's."""
    sha256 = blobs.put(b"the same")
    answers = iter([False, True])
    assert blobs.remove_unless(sha256, lambda _: next(answers)) == 0
    assert blobs.get(sha256) == b"the same"


def test_what_another_service_enters_after_that_is_brought_back_a_day_later(blobs, store):
    sha256 = blobs.put(b"the same")
    blobs.remove_unless(sha256, not_needed)
    blobs.tidy(time.time() + 2 * DAY, needed)
    assert blobs.get(sha256) == b"the same"
    assert list(store.all("removed")) == []


@pytest.mark.parametrize(
    ("blobs_address", "free_gb", "said"),
    [
        ("s4://bucket/x", 0, "Protocol not known"),
        ("file:///tmp/x", 0, "no place in an object store"),
        ("s3://", 0, "no place in an object store"),
        ("s3://bucket/x", 1, "KIZU_FREE_GB"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, blobs_address, free_gb, said):
    settings = Settings(data=tmp_path, blobs=blobs_address, free_gb=free_gb)
    with pytest.raises(SettingsError, match=said):
        open_blobs(settings)


def test_a_bucket_that_is_not_there_is_away(bucket, tmp_path):
    store = ObjectStore("s3://no-such-bucket/x")
    with pytest.raises(StorageUnavailable, match="does not exist"):
        store.put("a", b"")
