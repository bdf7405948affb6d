"""Public data sets as they are downloaded: MVTec-AD, VisA and CIFAR-10, by category."""

import csv
import hashlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.durable import make_directory, new_directory, write_file
from models.image import encode_png
from training.data.folders import Dataset, LabelledFile, read_mvtec
from training.errors import DatasetError

CIFAR_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

LEFT_OUT_IMAGES = 300  # of each class


def read_categories(root: Path) -> dict[str, Dataset]:
    """A product in the MVTec layout, or a folder of them (as MVTec-AD is), by name."""
    if (root / "train").is_dir():
        return {root.resolve().name: read_mvtec(root)}
    if not root.is_dir():
        raise DatasetError(f"There is no folder {root}.", remedy="Name a folder of images.")
    products = sorted(path.parent for path in root.glob("*/train"))
    if not products:
        raise DatasetError(
            f"{root} holds neither train/good nor products that do.",
            remedy="Lay images out as MVTec-AD does: <product>/train/good, <product>/test/….",
        )
    return {path.name: read_mvtec(path) for path in products}


def read_visa(root: Path, work: Path) -> dict[str, Dataset]:
    """VisA's one-class split (Zou et al., arXiv 2207.14315), by object.

    Its masks number the kinds of defects; `work` takes them as black and white.
    """
    table = root / "split_csv" / "1cls.csv"
    if not table.is_file():
        raise DatasetError(
            f"There is no {table}.", remedy="Name the folder that VisA was unpacked to."
        )
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    files: dict[str, dict[str, list[LabelledFile]]] = {}
    for row in rows:
        split = files.setdefault(row["object"], {"train": [], "test": []})[row["split"]]
        image = root / row["image"]
        sha256 = hashlib.sha256(image.read_bytes()).hexdigest()
        if row["label"] == "normal":
            split.append(LabelledFile(image, sha256, "ok"))
        else:
            mask = _black_and_white(root / row["mask"], work / "visa-masks" / row["object"])
            split.append(LabelledFile(image, sha256, "ng", "anomaly", mask))
    return {
        name: Dataset(root, tuple(splits["train"]), tuple(splits["test"]))
        for name, splits in files.items()
    }


def read_cifar10(
    path: Path, work: Path, *, train_images: int | None = None, left_out: int = 0
) -> dict[str, Dataset]:
    """CIFAR-10, one class against the rest, by the class that is good.

    `path` is a zip of `train/<class>/` and `test/<class>/`, or a folder of the original batches
    (binary or Python version). `work` takes the images as files. `train_images` keeps so many of
    each class, the first by content hash. So many classes as are `left_out`, those that follow the
    good one, are not tested on: `left_out_images` are what a model can learn other things from.
    """
    directory = work / "cifar10"
    if not directory.exists():
        unpack = _unzip if path.is_file() else _unpack_batches
        with new_directory(directory) as made:
            unpack(path, made)
    splits = {
        split: {name: _files(directory / split / name, name) for name in CIFAR_CLASSES}
        for split in ("train", "test")
    }
    if left_out and not left_out_images(work, left_out).exists():
        _link_left_out(splits["train"], left_out_images(work, left_out), left_out)
    return {
        name: _one_class(directory, splits, name, train_images, _following(name, left_out))
        for name in CIFAR_CLASSES
    }


def left_out_images(work: Path, count: int) -> Path:
    """Where `read_cifar10` puts 300 training images of each of the `count` classes that it left
    out, in a folder for each class that is good."""
    return work / f"left-out-{count}"


def _link_left_out(train: dict[str, list[LabelledFile]], folder: Path, count: int) -> None:
    with new_directory(folder) as made:
        for good in CIFAR_CLASSES:
            (made / good).mkdir()
            for name in _following(good, count):
                for file in sorted(train[name], key=_by_content)[:LEFT_OUT_IMAGES]:
                    os.link(file.image, made / good / f"{name}-{file.image.name}")


def _following(good: str, count: int) -> list[str]:
    place = CIFAR_CLASSES.index(good)
    return [CIFAR_CLASSES[(place + step) % len(CIFAR_CLASSES)] for step in range(1, count + 1)]


def _by_content(file: LabelledFile) -> str:
    return file.sha256


def _one_class(
    root: Path,
    splits: dict[str, dict[str, list[LabelledFile]]],
    good: str,
    kept: int | None,
    left_out: list[str],
) -> Dataset:
    train = sorted(splits["train"][good], key=_by_content)[:kept]
    test = [
        file for name, files in splits["test"].items() if name not in left_out for file in files
    ]
    return Dataset(
        root,
        tuple(LabelledFile(file.image, file.sha256, "ok") for file in train),
        tuple(
            LabelledFile(file.image, file.sha256, "ok") if file.defect_class == good else file
            for file in test
        ),
    )


def _files(folder: Path, name: str) -> list[LabelledFile]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    if not paths:
        raise DatasetError(
            f"There are no images in {folder}.",
            remedy="Remove that folder's data set and unpack it again.",
        )
    return [
        LabelledFile(path, hashlib.sha256(path.read_bytes()).hexdigest(), "ng", name)
        for path in paths
    ]


def _black_and_white(mask: Path, directory: Path) -> Path:
    target = directory / f"{mask.stem}.png"
    if not target.exists():
        make_directory(directory)
        kinds = np.asarray(Image.open(mask, formats=["PNG"]))
        write_file(target, encode_png((kinds > 0).astype(np.uint8) * 255))
    return target


def _unzip(path: Path, directory: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.startswith(("train/", "test/"))]
        if not names:
            raise DatasetError(
                f"{path} holds no train/<class>/ and test/<class>/.",
                remedy="Name a zip of that layout, or a folder of CIFAR-10's original batches.",
            )
        archive.extractall(directory, names)


def _unpack_batches(path: Path, directory: Path) -> None:
    for split, pattern in (("train", "data_batch_*"), ("test", "test_batch*")):
        batches = sorted(path.glob(pattern))
        if not batches:
            raise DatasetError(
                f"There is no {pattern} in {path}.",
                remedy="Name the folder cifar-10-batches-bin or cifar-10-batches-py.",
            )
        number = 0
        for batch in batches:
            read = _binary_batch if batch.suffix == ".bin" else _pickled_batch
            for label, image in read(batch):
                target = directory / split / CIFAR_CLASSES[label] / f"{number:05}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(encode_png(image))
                number += 1


def _binary_batch(path: Path) -> Iterator[tuple[int, Any]]:
    records = np.fromfile(path, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    for record in records:
        yield int(record[0]), record[1:].reshape(3, 32, 32).transpose(1, 2, 0)


def _pickled_batch(path: Path) -> Iterator[tuple[int, Any]]:
    batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    for label, pixels in zip(batch[b"labels"], batch[b"data"], strict=True):
        yield int(label), pixels.reshape(3, 32, 32).transpose(1, 2, 0)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays and plain values: a downloaded file must not run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.split(".")[0], name) in (
            ("numpy", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"),
            ("_codecs", "encode"),
        ):  # fmt: skip
            loaded: Callable[..., Any] = super().find_class(
                module.replace("numpy.core", "numpy._core"), name
            )
            return loaded
        raise DatasetError(f"A batch names {module}.{name}.", remedy="Download CIFAR-10 again.")
