import csv
import pickle
import zipfile

import numpy as np
import pytest

from models.image import encode_png, read_mask
from training.data.drawn_defects import external_anomalies
from training.data.public_sets import (
    CIFAR_CLASSES,
    left_out_images,
    read_categories,
    read_cifar10,
    read_visa,
)
from training.errors import DatasetError

RNG = np.random.default_rng(0)


def picture(size=32):
    return RNG.integers(0, 255, (size, size, 3), np.uint8)


def test_a_product_and_a_folder_of_products_are_told_apart(product, tmp_path):
    assert list(read_categories(product)) == ["cap"]
    assert list(read_categories(product.parent)) == ["cap"]
    assert read_categories(product)["cap"].test
    with pytest.raises(DatasetError, match="neither"):
        read_categories(tmp_path)
    with pytest.raises(DatasetError, match="no folder"):
        read_categories(tmp_path / "nowhere")


def test_visa_is_read_by_its_table_and_its_masks_are_made_black_and_white(tmp_path):
    root = tmp_path / "visa"
    rows = []
    for split, label, number in (
        ("train", "normal", 0), ("train", "normal", 1), ("test", "normal", 2),
        ("test", "anomaly", 3),
    ):  # fmt: skip
        image = f"candle/Data/Images/{label}/{number:03}.PNG"
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(encode_png(picture()))
        mask = f"candle/Data/Masks/Anomaly/{number:03}.png" if label == "anomaly" else ""
        rows.append(("candle", split, label, image, mask))
    kinds = np.zeros((32, 32), np.uint8)
    kinds[4:8, 4:8], kinds[20:24, 4:8] = 1, 3
    (root / "candle/Data/Masks/Anomaly").mkdir(parents=True)
    (root / "candle/Data/Masks/Anomaly/003.png").write_bytes(encode_png(kinds))
    (root / "split_csv").mkdir()
    with (root / "split_csv" / "1cls.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("object", "split", "label", "image", "mask"), *rows])
    data = read_visa(root, tmp_path / "work")["candle"]
    assert [file.verdict for file in data.train] == ["ok", "ok"]
    assert [file.verdict for file in data.test] == ["ok", "ng"]
    assert read_mask(data.test[1].mask.read_bytes()).sum() == 32
    with pytest.raises(DatasetError, match="1cls"):
        read_visa(tmp_path / "nowhere", tmp_path / "work")


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for split, count in (("train", 3), ("test", 2)):
            for name in CIFAR_CLASSES:
                for number in range(count):
                    archive.writestr(f"{split}/{name}/{number}.png", encode_png(picture()))
    return path


def write_batches(path, kind):
    path.mkdir()
    for name, count in (("data_batch_1", 30), ("test_batch", 20)):
        labels = [i % 10 for i in range(count)]
        data = RNG.integers(0, 255, (count, 3072), np.uint8)
        if kind == "binary":
            records = np.hstack([np.array(labels, np.uint8)[:, None], data])
            records.tofile(path / f"{name}.bin")
        else:
            content = pickle.dumps({b"labels": labels, b"data": data}, protocol=2)
            (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["zip", "binary", "python"])
def test_cifar10_is_one_class_against_the_rest(kind, tmp_path):
    source = write_zip(tmp_path / "c.zip") if kind == "zip" else write_batches(tmp_path / "c", kind)
    sets = read_cifar10(source, tmp_path / "work", train_images=2)
    assert tuple(sets) == CIFAR_CLASSES
    frog = sets["frog"]
    assert len(frog.train) == 2
    assert {file.verdict for file in frog.train} == {"ok"}
    good = [file for file in frog.test if file.verdict == "ok"]
    assert len(good) == 2
    assert len(frog.test) == 20
    assert all("frog" in file.image.parts for file in good)
    assert not {f.sha256 for f in frog.train} & {f.sha256 for f in frog.test}
    # A second reading needs the source no more.
    assert read_cifar10(tmp_path / "gone", tmp_path / "work", train_images=2) == sets


def test_classes_of_cifar10_that_are_left_out_are_images_of_other_things(tmp_path):
    source = write_zip(tmp_path / "c.zip")
    whole = read_cifar10(source, tmp_path / "work")
    sets = read_cifar10(source, tmp_path / "work", left_out=3)
    tested = {file.image.parent.name for file in sets["horse"].test}
    assert tested == set(CIFAR_CLASSES) - {"ship", "truck", "airplane"}
    assert sets["horse"].train == whole["horse"].train
    others = external_anomalies(left_out_images(tmp_path / "work", 3) / "horse")
    learned = {file.sha256 for name in ("ship", "truck", "airplane") for file in whole[name].train}
    assert {file.sha256 for file in others} == learned
    assert read_cifar10(source, tmp_path / "work", left_out=3) == sets


def test_a_batch_that_would_run_code_is_refused(tmp_path):
    folder = write_batches(tmp_path / "c", "python")

    class Evil:
        def __reduce__(self):
            return print, ("run",)

    (folder / "data_batch_1").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DatasetError, match="print"):
        read_cifar10(folder, tmp_path / "work")
    assert not (tmp_path / "work" / "cifar10").exists()


def test_what_is_no_cifar10_is_said(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(DatasetError, match="train/<class>"):
        read_cifar10(tmp_path / "x.zip", tmp_path / "work")
    with pytest.raises(DatasetError, match="data_batch"):
        read_cifar10(tmp_path, tmp_path / "work")
