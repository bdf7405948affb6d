import shutil

import numpy as np
import pytest

from models.errors import SnapshotError
from models.image import PixelContract, encode_png
from models.sample import LabelledImage, Sample, write_snapshot
from training.data.folders import check_masks, hold_out, read_mvtec, read_snapshot
from training.errors import DatasetError


def test_a_folder_is_read_with_its_masks(dataset):
    assert len(dataset.train) == 24
    assert all(file.verdict == "ok" for file in dataset.train)
    defective = [file for file in dataset.test if file.verdict == "ng"]
    assert {file.defect_class for file in defective} == {"scratch", "dent", "missing_print"}
    assert all(file.mask and file.mask.is_file() for file in defective)


def test_held_out_parts_are_chosen_by_content(dataset, product, tmp_path):
    renamed = tmp_path / "renamed"
    for number, file in enumerate(reversed(dataset.train)):
        target = renamed / "train" / "good" / f"z{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file.image, target)
    other = read_mvtec(renamed)
    assert hold_out(other.train, 0.25, 1) == hold_out(dataset.train, 0.25, 1)
    assert len(hold_out(dataset.train, 0.25, 1)) == 6
    assert len(hold_out(dataset.train, 0.25, 9)) == 9
    assert len(hold_out(dataset.train, 0.25, 20)) == 12
    assert other.digest == dataset.digest


def test_copies_count_once(product, tmp_path):
    shutil.copytree(product, tmp_path / "p")
    good = tmp_path / "p" / "train" / "good"
    shutil.copy(good / "000.jpg", good / "copy.jpg")
    assert len(read_mvtec(tmp_path / "p").train) == 24


def break_missing(root):
    shutil.rmtree(root)


def break_empty(root):
    shutil.rmtree(root / "train" / "good")


def break_orphan(root):
    shutil.copy(
        root / "ground_truth" / "dent" / "000_mask.png",
        root / "ground_truth" / "dent" / "999_mask.png",
    )


@pytest.mark.parametrize(
    ("harm", "says"),
    [(break_missing, "no folder"), (break_empty, "no good images"), (break_orphan, "no image")],
)
def test_what_is_wrong_with_a_folder_is_said(product, tmp_path, harm, says):
    shutil.copytree(product, tmp_path / "p")
    harm(tmp_path / "p")
    with pytest.raises(DatasetError, match=says) as error:
        read_mvtec(tmp_path / "p")
    assert error.value.remedy


def test_a_snapshot_reads_as_files(tmp_path, dataset):
    file = dataset.test[0]
    sample = Sample(image_sha256=file.sha256, recipe="cap", verdict="ok")
    snapshot = write_snapshot(tmp_path, [LabelledImage(sample, file.image.read_bytes())])
    (read,) = read_snapshot(snapshot)
    assert read.image.read_bytes() == file.image.read_bytes()
    assert (read.verdict, read.mask) == ("ok", None)


def test_a_snapshot_that_was_changed_is_refused(tmp_path, dataset):
    sample = Sample(image_sha256=dataset.test[0].sha256, recipe="cap", verdict="ok")
    image = LabelledImage(sample, dataset.test[0].image.read_bytes())
    snapshot = write_snapshot(tmp_path, [image])
    (snapshot.path / "images" / sample.image_sha256).write_bytes(b"another image")
    with pytest.raises(SnapshotError, match="differs"):
        read_snapshot(snapshot)


def test_a_mask_that_cannot_be_used_is_found_before_any_training(product, tmp_path):
    shutil.copytree(product, tmp_path / "p")
    mask = tmp_path / "p" / "ground_truth" / "dent" / "000_mask.png"
    mask.write_bytes(encode_png(np.full((96, 96), 300, np.uint16)))
    with pytest.raises(DatasetError, match=r"000_mask\.png cannot be used"):
        check_masks(read_mvtec(tmp_path / "p").test, PixelContract())


def test_a_mask_of_another_size_than_its_image_is_refused(product, tmp_path):
    shutil.copytree(product, tmp_path / "p")
    mask = tmp_path / "p" / "ground_truth" / "dent" / "000_mask.png"
    mask.write_bytes(encode_png(np.full((48, 96), 255, np.uint8)))
    with pytest.raises(DatasetError, match="is 96×48 pixels, its image 96×96"):
        check_masks(read_mvtec(tmp_path / "p").test, PixelContract())


def test_a_link_to_nowhere_is_said(product, tmp_path):
    shutil.copytree(product, tmp_path / "p")
    (tmp_path / "p" / "train" / "good" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(DatasetError, match=r"gone\.jpg cannot be read"):
        read_mvtec(tmp_path / "p")
