"""What is kept is on disk under its sha256; what is not leaves nothing."""

import hashlib

import pytest

from service.store.local_blobs import LocalBlobs


@pytest.fixture
def blobs(tmp_path):
    return LocalBlobs(tmp_path)


def files(tmp_path):
    return [path.name for path in tmp_path.rglob("*") if path.is_file()]


def test_a_draft_has_no_name_until_it_is_kept(blobs, tmp_path):
    draft = blobs.draft(b"image")
    draft.write()
    sha256 = draft.sha256
    assert sha256 == hashlib.sha256(b"image").hexdigest()
    assert blobs.get(sha256) is None
    draft.keep()
    draft.discard()
    assert blobs.get(sha256) == b"image"
    assert files(tmp_path) == [sha256]


@pytest.mark.parametrize("discarded_before_written", [False, True])
def test_what_is_discarded_leaves_nothing_and_cannot_be_kept(
    blobs, tmp_path, discarded_before_written
):
    draft = blobs.draft(b"image")
    if discarded_before_written:  # by who gave up meanwhile
        draft.discard()
    draft.write()
    sha256 = draft.sha256
    draft.discard()
    with pytest.raises(ValueError, match="written"):
        draft.keep()
    assert files(tmp_path) == []
    assert blobs.get(sha256) is None


def test_a_draft_that_is_discarded_leaves_what_another_kept(blobs, tmp_path):
    draft = blobs.draft(b"image")
    draft.write()
    sha256 = blobs.put(b"image")
    draft.discard()
    later = blobs.draft(b"image")
    later.write()
    later.discard()
    assert blobs.get(sha256) == b"image"
    assert files(tmp_path) == [sha256]


def test_what_was_not_written_cannot_be_kept(blobs):
    with pytest.raises(ValueError, match="written"):
        blobs.draft(b"image").keep()
