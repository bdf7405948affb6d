import shutil
from pathlib import Path

import numpy as np
import pytest

from models.errors import SnapshotError
from models.image import PixelContract, encode_png
from models.sample import LabelledImage, Sample, write_snapshot
from training.data.folders import check_masks, read_mvtec, read_snapshot, without
from training.errors import DatasetError


def test_a_folder_is_read_with_its_masks(dataset):
    assert len(dataset.train) == 24
    assert all(file.verdict == "ok" for file in dataset.train)
    defective = [file for file in dataset.test if file.verdict == "ng"]
    assert {file.defect_class for file in defective} == {"scratch", "dent", "missing_print"}
    assert all(file.mask and file.mask.is_file() for file in defective)


def test_a_renamed_folder_has_the_same_digest(dataset, tmp_path):
    renamed = tmp_path / "renamed"
    for number, file in enumerate(reversed(dataset.train)):
        target = renamed / "train" / "good" / f"z{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file.image, target)
    assert read_mvtec(renamed).digest == dataset.digest


def test_sub_folders_of_good_parts_are_groups_and_hidden_ones_are_left_out(product, tmp_path):
    root = tmp_path / "p"
    shutil.copytree(product, root)
    good = root / "train" / "good"
    for number, name in enumerate(("lot-7", ".thumbnails")):
        (good / name).mkdir()
        shutil.move(good / f"00{number}.jpg", good / name / "a.jpg")
    read = read_mvtec(root)
    assert len(read.train) == 23
    assert [file.group for file in read.train if file.group] == ["lot-7"]
    assert any("1 sub-folders" in note for note in read.notes)
    assert any(".thumbnails" in note for note in read.notes)


def test_an_image_in_train_and_test_is_learned_and_not_tested(product, tmp_path):
    root = tmp_path / "p"
    shutil.copytree(product, root)
    shutil.copy(root / "train" / "good" / "000.jpg", root / "test" / "good" / "again.jpg")
    read = read_mvtec(root)
    assert len(read.test) == len(read_mvtec(product).test)
    assert any("not tested" in note for note in read.notes)


def test_good_parts_of_another_day_are_validation(product, tmp_path):
    root = tmp_path / "p"
    shutil.copytree(product, root)
    other = root / "validation" / "good"
    other.mkdir(parents=True)
    shutil.move(root / "test" / "good" / "000.jpg", other / "000.jpg")
    read = read_mvtec(root)
    assert [file.verdict for file in read.validation] == ["ok"]
    assert read.digest != read_mvtec(product).digest  # they are learned, too


def test_masks_of_any_image_type_are_found_and_unused_ones_named(product, tmp_path):
    root = tmp_path / "p"
    shutil.copytree(product, root)
    masks = root / "ground_truth" / "dent"
    shutil.move(masks / "000_mask.png", masks / "000.bmp")
    shutil.copy(masks / "001_mask.png", masks / "999_mask.png")
    read = read_mvtec(root)
    assert masks / "000.bmp" in {file.mask for file in read.test}
    assert any("999_mask.png" in note for note in read.notes)


def test_good_parts_are_left_out_by_name_or_path(dataset):
    first, second = dataset.train[:2]
    left = without(dataset, [Path(first.image.name), second.image])
    assert left.train == dataset.train[2:]
    assert any("2 good parts are left out" in note for note in left.notes)
    with pytest.raises(DatasetError, match=r"0 good parts are called none\.jpg"):
        without(dataset, [Path("none.jpg")])


def test_copies_count_once(product, tmp_path):
    shutil.copytree(product, tmp_path / "p")
    good = tmp_path / "p" / "train" / "good"
    shutil.copy(good / "000.jpg", good / "copy.jpg")
    assert len(read_mvtec(tmp_path / "p").train) == 24


def break_missing(root):
    shutil.rmtree(root)


def break_empty(root):
    shutil.rmtree(root / "train" / "good")


@pytest.mark.parametrize(
    ("harm", "says"),
    [(break_missing, "no folder"), (break_empty, "no good images")],
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
