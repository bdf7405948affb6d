"""Labelled images on disk: MVTec-layout folders and snapshots, as lists of files."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.errors import ImageError
from models.image import PixelContract, decode, read_mask
from models.sample import Snapshot
from training.errors import DatasetError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class LabelledFile:
    """One image file with what is known of it; `sha256` is of the image file's bytes."""

    image: Path
    sha256: str
    verdict: Literal["ok", "ng"]
    defect_class: str | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """`train` holds good parts only; `test` may hold both, or be empty."""

    root: Path
    train: tuple[LabelledFile, ...]
    test: tuple[LabelledFile, ...]

    @property
    def digest(self) -> str:
        """Names the training images by their content, whatever their order or file names."""
        lines = "\n".join(sorted(file.sha256 for file in self.train))
        return hashlib.sha256(lines.encode()).hexdigest()


def read_mvtec(root: Path) -> Dataset:
    """Read `train/good`, and where present `test/<good or defect>` and `ground_truth/<defect>`.

    Masks are called `<image stem>_mask.png`. Raises DatasetError for a folder that is missing,
    without good parts, or with masks that belong to no image.
    """
    if not root.is_dir():
        raise DatasetError(f"There is no folder {root}.", remedy="Name a folder of images.")
    good = root / "train" / "good"
    train = tuple(_label(path, "good", root) for path in _images(good))
    if not train:
        raise DatasetError(
            f"There are no good images in {good}.",
            remedy="Put images of good parts there (JPEG, PNG, BMP, TIFF or WebP).",
        )
    test_root = root / "test"
    kinds = sorted(path.name for path in test_root.iterdir()) if test_root.is_dir() else []
    test = tuple(_label(path, kind, root) for kind in kinds for path in _images(test_root / kind))
    _check_masks(root / "ground_truth", test)
    return Dataset(root, _unique(train), test)


def joined(datasets: Iterable[Dataset], root: Path) -> Dataset:
    """Several products as one, to be learned by one model."""
    several = tuple(datasets)
    return Dataset(
        root,
        _unique(tuple(file for data in several for file in data.train)),
        tuple(file for data in several for file in data.test),
    )


def read_images(folder: Path) -> tuple[LabelledFile, ...]:
    """All images of a folder, as good parts. Raises DatasetError for one that cannot be read."""
    return tuple(_label(path, "good", folder) for path in _images(folder))


def read_snapshot(snapshot: Snapshot) -> tuple[LabelledFile, ...]:
    """The files of a snapshot, each checked against its hash. Raises SnapshotError."""
    for sample in snapshot.samples:
        snapshot.read_image(sample)
        snapshot.read_mask(sample)
    return tuple(
        LabelledFile(
            image=snapshot.path / "images" / sample.image_sha256,
            sha256=sample.image_sha256,
            verdict=sample.verdict,
            defect_class=sample.defect_class,
            mask=(
                snapshot.path / "masks" / f"{sample.mask_sha256}.png"
                if sample.mask_sha256
                else None
            ),
        )
        for sample in snapshot.samples
    )


def check_masks(files: Iterable[LabelledFile], pixels: PixelContract) -> None:
    """Read every mask with its image. Raises DatasetError for the first that cannot be used."""
    for file in files:
        if file.mask is None:
            continue
        try:
            height, width = read_mask(file.mask.read_bytes()).shape
        except ImageError as error:
            raise DatasetError(
                f"{file.mask} cannot be used: {error.message}", remedy=error.remedy
            ) from error
        try:
            image = decode(file.image.read_bytes(), pixels)
        except ImageError:
            continue  # said with all other broken images, when features are gathered
        if image.shape[:2] != (height, width):
            raise DatasetError(
                f"{file.mask} is {width}×{height} pixels, its image {image.shape[1]}×"
                f"{image.shape[0]}.",
                remedy="Draw the mask on the image itself; a mask is never stretched.",
            )


def hold_out(files: Iterable[LabelledFile], share: float, least: int) -> set[str]:
    """The hashes of the `share` of files that come first by content hash, `least` at the least.

    Chosen by content, so that a renamed or re-ordered folder holds out the same parts. Never
    more than half.
    """
    ranked = sorted({file.sha256 for file in files})
    return set(ranked[: min(max(least, round(len(ranked) * share)), len(ranked) // 2)])


def _label(path: Path, kind: str, root: Path) -> LabelledFile:
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror}.", remedy="Mend or remove it."
        ) from error
    if kind == "good":
        return LabelledFile(path, sha256, "ok")
    mask = root / "ground_truth" / kind / f"{path.stem}_mask.png"
    return LabelledFile(path, sha256, "ng", kind, mask if mask.is_file() else None)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _check_masks(ground_truth: Path, test: tuple[LabelledFile, ...]) -> None:
    used = {file.mask for file in test}
    orphans = [path for path in sorted(ground_truth.glob("*/*.png")) if path not in used]
    if orphans:
        raise DatasetError(
            f"{len(orphans)} masks belong to no image, the first is {orphans[0]}.",
            remedy="Call the mask of test/<defect>/<name>.* ground_truth/<defect>/<name>_mask.png.",
        )


def _unique(files: tuple[LabelledFile, ...]) -> tuple[LabelledFile, ...]:
    """Drop byte-identical copies: one must not be trained on while another calibrates."""
    return tuple({file.sha256: file for file in files}.values())
