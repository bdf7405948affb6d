"""Bundles that several services share by an object store."""

from datetime import UTC, datetime

import pytest

from models.bundle import MANIFEST, MODEL, list_versions, open_bundle
from models.errors import BundleError
from service.settings import Settings, SettingsError
from service.store.mirror import Mirror
from service.store.objects import ObjectStore
from service.store.place import open_mirror
from tests.grey_parts import write_version


@pytest.fixture
def objects(bucket):
    return ObjectStore(bucket.address)


@pytest.fixture
def there(objects, tmp_path):
    """Where bundles are made: it sends them."""
    write_version(tmp_path / "there")
    return Mirror(objects, tmp_path / "there")


@pytest.fixture
def here(objects, tmp_path):
    (tmp_path / "here").mkdir()
    return Mirror(objects, tmp_path / "here")


def test_what_one_sends_the_other_brings_whole(there, here, tmp_path):
    there.send_all()
    here.fetch()
    sent, brought = (open_bundle(tmp_path / store / "cap" / "1") for store in ("there", "here"))
    assert sent.digest == brought.digest
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["cap"]
    assert not there.send(sent)  # once is enough
    assert here.problems == []


def test_a_version_counts_once_all_of_it_is_there(objects, there, here, tmp_path):
    there.send_all()
    manifest = objects.get(f"cap/1/{MANIFEST}")
    objects.remove(f"cap/1/{MANIFEST}")
    here.fetch()
    assert list_versions(tmp_path / "here", "cap") == []
    objects.put(f"cap/1/{MANIFEST}", manifest)
    here.fetch()
    assert list_versions(tmp_path / "here", "cap") == [1]


def test_what_was_changed_there_is_refused_until_it_is_taken_out_and_sent_anew(
    objects, there, here, tmp_path
):
    there.send_all()
    model = objects.get(f"cap/1/{MODEL}")
    objects.put(f"cap/1/{MODEL}", model[:-1] + b"\0")
    here.fetch()
    assert list_versions(tmp_path / "here", "cap") == []
    assert ["differs from the hash" in problem for problem in here.problems] == [True]
    objects.remove(f"cap/1/{MANIFEST}")
    here.fetch()
    there.send(open_bundle(tmp_path / "there" / "cap" / "1"))
    here.fetch()
    assert list_versions(tmp_path / "here", "cap") == [1]
    assert here.problems == []


def test_two_bundles_of_one_number_are_told_apart(there, here, tmp_path):
    there.send_all()
    write_version(tmp_path / "here", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(BundleError, match="another one in the object store"):
        here.send(open_bundle(tmp_path / "here" / "cap" / "1"))
    here.fetch()
    assert ["another one here" in problem for problem in here.problems] == [True]


def test_while_the_store_is_away_all_goes_on(bucket, there, here, tmp_path):
    bucket.cable.pull()
    here.exchange(sends=False)
    assert ["Bundles are not exchanged" in problem for problem in here.problems] == [True]
    bucket.cable.plug()
    there.send_all()
    here.exchange(sends=False)
    assert here.problems == []
    assert list_versions(tmp_path / "here", "cap") == [1]


def test_a_broken_bundle_is_not_sent(objects, there, tmp_path):
    (tmp_path / "there" / "cap" / "1" / MODEL).write_bytes(b"broken")
    there.send_all()
    assert list(objects.all("")) == []


def test_images_and_bundles_have_places_of_their_own(tmp_path):
    settings = Settings(store=tmp_path, blobs="s3://plant/kizu", bundles="s3://plant/kizu")
    with pytest.raises(SettingsError, match="the same place"):
        open_mirror(settings)
