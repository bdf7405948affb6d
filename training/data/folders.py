"""Labelled images on disk: MVTec-layout folders and snapshots, as lists of files."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from models.errors import ImageError
from models.image import PixelContract, decode, read_mask
from models.sample import Snapshot
from training.errors import DatasetError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class LabelledFile:
    """One image file with what is known of it; `sha256` is of the image file's bytes.

    `group` names the lot, part or day that it belongs to, where that is known.
    """

    image: Path
    sha256: str
    verdict: Literal["ok", "ng"]
    defect_class: str | None = None
    mask: Path | None = None
    group: str | None = None


@dataclass(frozen=True)
class Dataset:
    """`train` holds good parts only; `test` may hold both, or be empty. `validation` are good parts
    of another day, where there are some. `notes` say what was found in the folder and not used, or
    used in another way than its owner may think."""

    root: Path
    train: tuple[LabelledFile, ...]
    test: tuple[LabelledFile, ...]
    validation: tuple[LabelledFile, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Names the images that are learned by their content, whatever their order or names."""
        lines = "\n".join(sorted(file.sha256 for file in self.train + self.validation))
        return hashlib.sha256(lines.encode()).hexdigest()


def read_mvtec(root: Path) -> Dataset:
    """Read `train/good`, and where present `validation/good`, `test/<good or defect>` and
    `ground_truth/<defect>`.

    A sub-folder of `train/good` names a group of parts that belong together: a lot, or a day. Masks
    are called `<image stem>_mask` or `<image stem>`, of any image type. Raises DatasetError for a
    folder that is missing or has no good parts.
    """
    if not root.is_dir():
        raise DatasetError(f"There is no folder {root}.", remedy="Name a folder of images.")
    good = root / "train" / "good"
    notes: list[str] = []
    train = _good(good, notes)
    if not train:
        raise DatasetError(
            f"There are no good images in {good}.",
            remedy="Put images of good parts there (JPEG, PNG, BMP, TIFF or WebP).",
        )
    validation = _good(root / "validation" / "good", notes)
    test_root, masks = root / "test", _Masks(root / "ground_truth")
    test = tuple(
        _label(path, kind.name, masks)
        for kind in _folders(test_root, notes)
        for path in _images(kind)
    )
    masks.note_unused(notes)
    learned = {file.sha256 for file in train} | {file.sha256 for file in validation}
    if both := [file for file in test if file.sha256 in learned]:
        notes.append(
            f"{len(both)} images are in test and in train or validation, the first is "
            f"{both[0].image.relative_to(root)}: they are learned, and not tested."
        )
    return Dataset(
        root, train, tuple(file for file in test if file.sha256 not in learned), validation,
        tuple(notes),
    )  # fmt: skip


def without(data: Dataset, images: Sequence[Path]) -> Dataset:
    """The data without some of the good parts, named by the paths or the names of their images.

    Raises DatasetError for a name that no good part, or more than one, has.
    """
    good = data.train + data.validation
    left_out: set[str] = set()
    for image in images:
        found = {
            file.sha256
            for file in good
            if file.image.name == str(image) or file.image.resolve() == image.resolve()
        }
        if len(found) != 1:
            raise DatasetError(
                f"{len(found)} good parts are called {image}.",
                remedy="Name the image as the fit names it, or by its path.",
            )
        left_out |= found
    note = f"{len(left_out)} good parts are left out, as asked."
    return replace(
        data,
        train=tuple(file for file in data.train if file.sha256 not in left_out),
        validation=tuple(file for file in data.validation if file.sha256 not in left_out),
        notes=(*data.notes, *([note] if left_out else [])),
    )


def joined(datasets: Iterable[Dataset], root: Path) -> Dataset:
    """Several products as one, to be learned by one model."""
    several = tuple(datasets)
    return Dataset(
        root,
        _unique(tuple(file for data in several for file in data.train)),
        tuple(file for data in several for file in data.test),
        _unique(tuple(file for data in several for file in data.validation)),
        tuple(note for data in several for note in data.notes),
    )


def read_images(folder: Path) -> tuple[LabelledFile, ...]:
    """All images of a folder, as good parts. Raises DatasetError for one that cannot be read."""
    return tuple(_label(path, "good") for path in _images(folder))


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


def _good(folder: Path, notes: list[str]) -> tuple[LabelledFile, ...]:
    """The images of a folder of good parts, and of its sub-folders, each of which is a group."""
    files = [_label(path, "good") for path in _images(folder)]
    groups = _folders(folder, notes)
    for group in groups:
        files += [replace(_label(path, "good"), group=group.name) for path in _images(group)]
    if groups:
        notes.append(
            f"{folder.parent.name}/{folder.name} has {len(groups)} sub-folders: the parts of each "
            "are held out together."
        )
    unique = _unique(tuple(files))
    if len(unique) < len(files):
        notes.append(
            f"{len(files) - len(unique)} images in {folder.parent.name}/{folder.name} are copies "
            "of others: each is learned once."
        )
    return unique


def _folders(folder: Path, notes: list[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    found = sorted(path for path in folder.iterdir() if path.is_dir())
    if hidden := [path.name for path in found if path.name.startswith(".")]:
        notes.append(f"Hidden folders in {folder.name} are left out: {', '.join(hidden)}.")
    return [path for path in found if not path.name.startswith(".")]


class _Masks:
    """The mask of each image, by its kind of defect and its stem."""

    def __init__(self, root: Path) -> None:
        self._files = {
            (path.parent.name, path.stem.removesuffix("_mask")): path
            for path in sorted(root.glob("*/*"))
            if path.suffix.lower() in SUFFIXES and not path.parent.name.startswith(".")
        }
        self._used: set[Path] = set()

    def of(self, kind: str, image: Path) -> Path | None:
        mask = self._files.get((kind, image.stem))
        if mask:
            self._used.add(mask)
        return mask

    def note_unused(self, notes: list[str]) -> None:
        unused = [path for path in self._files.values() if path not in self._used]
        if unused:
            notes.append(
                f"{len(unused)} masks belong to no image and are not used, the first is "
                f"{unused[0].parent.name}/{unused[0].name}: the mask of test/<defect>/<name>.* is "
                "ground_truth/<defect>/<name>_mask.*"
            )


def _label(path: Path, kind: str, masks: _Masks | None = None) -> LabelledFile:
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror}.", remedy="Mend or remove it."
        ) from error
    if kind == "good":
        return LabelledFile(path, sha256, "ok")
    return LabelledFile(path, sha256, "ng", kind, masks.of(kind, path) if masks else None)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _unique(files: tuple[LabelledFile, ...]) -> tuple[LabelledFile, ...]:
    """Drop byte-identical copies: one must not be learned while another calibrates."""
    return tuple({file.sha256: file for file in reversed(files)}.values())[::-1]
