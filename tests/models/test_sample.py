"""Snapshots: named by their content, and refused once it has changed."""

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from models.errors import SnapshotError
from models.image import encode_png
from models.sample import SAMPLES, LabelledImage, Sample, Snapshot, open_snapshot, write_snapshot


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def labelled(seed: int, *, masked: bool = False, **fields: Any) -> LabelledImage:
    image = encode_png(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8))
    mask = encode_png(np.full((8, 8), 255, np.uint8)) if masked else None
    sample = Sample(
        image_sha256=sha256(image),
        mask_sha256=sha256(mask) if mask else None,
        **{"recipe": "cap", "verdict": "ng" if masked else "ok", **fields},
    )
    return LabelledImage(sample, image, mask)


LABELLED = [
    labelled(0),
    labelled(1, masked=True, defect_class="scratch\u2028\r\n", operator="村上"),
    labelled(2, masked=True, inspection_id="i2", labelled_at=datetime(2025, 1, 2, tzinfo=UTC)),
    labelled(3, verdict="ng"),
]


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    return write_snapshot(tmp_path, LABELLED)


def test_what_is_written_is_read(snapshot: Snapshot) -> None:
    opened = open_snapshot(snapshot.path)
    by_image = {item.sample.image_sha256: item for item in LABELLED}
    assert [sample.image_sha256 for sample in opened.samples] == sorted(by_image)
    for sample in opened.samples:
        item = by_image[sample.image_sha256]
        assert sample == item.sample
        assert opened.read_image(sample) == item.image
        assert opened.read_mask(sample) == item.mask


def test_the_digest_is_that_of_the_samples_in_any_order(tmp_path: Path) -> None:
    written = [write_snapshot(tmp_path, order) for order in itertools.permutations(LABELLED)]
    assert len({snapshot.digest for snapshot in written}) == 1
    assert written[0].digest == sha256((written[0].path / SAMPLES).read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == [written[0].digest]


@pytest.mark.parametrize("change", [{"verdict": "ng"}, {"defect_class": "dent"}, {"recipe": "lid"}])
def test_another_label_is_another_digest(
    tmp_path: Path, snapshot: Snapshot, change: dict[str, str]
) -> None:
    other = write_snapshot(tmp_path, [labelled(0, **change), *LABELLED[1:]])
    assert other.digest != snapshot.digest
    assert open_snapshot(snapshot.path).samples == snapshot.samples


def test_concurrent_writers_of_the_same_samples_all_get_them(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def together() -> Iterator[LabelledImage]:
        yield from LABELLED
        barrier.wait(timeout=60)

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda _: write_snapshot(tmp_path, together()), range(32)))
    assert len({snapshot.path for snapshot in written}) == 1
    assert list(tmp_path.iterdir()) == [written[0].path]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_found(snapshot: Snapshot, damage: Callable[[Path], object]) -> None:
    sample = next(sample for sample in snapshot.samples if sample.mask_sha256)
    damage(snapshot.path / "masks" / f"{sample.mask_sha256}.png")
    with pytest.raises(SnapshotError, match=str(sample.mask_sha256)):
        snapshot.read_mask(sample)
    damage(snapshot.path / "images" / sample.image_sha256)
    with pytest.raises(SnapshotError, match=sample.image_sha256):
        snapshot.read_image(sample)
    damage(snapshot.path / SAMPLES)
    with pytest.raises(SnapshotError, match=SAMPLES):
        open_snapshot(snapshot.path)


def test_a_renamed_snapshot_is_refused(snapshot: Snapshot) -> None:
    with pytest.raises(SnapshotError, match="differs from the digest"):
        open_snapshot(snapshot.path.rename(snapshot.path.with_name("mine")))


def test_a_snapshot_is_opened_from_within(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(snapshot.path)
    assert open_snapshot(Path()).digest == snapshot.digest


def test_lines_that_are_no_samples_are_refused(tmp_path: Path) -> None:
    for line in (b"{}\n", b"no json\n", b"\xff\n"):
        path = tmp_path / sha256(line)
        path.mkdir()
        (path / SAMPLES).write_bytes(line)
        with pytest.raises(SnapshotError, match="holds no samples"):
            open_snapshot(path)


REFUSED = {
    "nothing": ([], "no labelled images"),
    "the same image twice": ([labelled(0), labelled(0, verdict="ng")], "twice"),
    "another image": ([LabelledImage(labelled(0).sample, b"other")], "differs from its hash"),
    "another mask": (
        [LabelledImage(LABELLED[1].sample, LABELLED[1].image, b"other")],
        "differs from its hash",
    ),
    "no mask": ([LabelledImage(LABELLED[1].sample, LABELLED[1].image)], "without the mask"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_hold_together_is_refused_and_leaves_nothing(
    tmp_path: Path, name: str
) -> None:
    items, why = REFUSED[name]
    with pytest.raises(SnapshotError, match=why):
        write_snapshot(tmp_path, items)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_collection_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[LabelledImage]:
        yield LABELLED[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_snapshot(tmp_path, interrupted())
    assert list(tmp_path.iterdir()) == []


def test_a_sample_is_closed_and_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LABELLED[0].sample.verdict = "ng"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra"):
        Sample.model_validate({**LABELLED[0].sample.model_dump(), "score": 1.0})
    with pytest.raises(ValidationError, match="verdict"):
        labelled(0, verdict="review")
