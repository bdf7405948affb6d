"""Snapshots: immutable, digest-named sets of labelled samples, from the service to training.

`<root>/<digest>/` holds `samples.jsonl` (one Sample a line, sorted by image hash),
`images/<sha256>` and `masks/<sha256>.png`. The digest is the sha256 of `samples.jsonl`, which
names every other file by its own.
"""

import hashlib
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from models.contract import Contract
from models.durable import make_directory, new_directory, rename_directory, write_file
from models.errors import SnapshotError

SAMPLES = "samples.jsonl"


class Sample(Contract):
    """One labelled image. A `ng` sample with a mask teaches where, one without only that."""

    image_sha256: str
    recipe: str
    verdict: Literal["ok", "ng"]
    defect_class: str | None = None
    mask_sha256: str | None = None
    inspection_id: str | None = None
    operator: str | None = None
    labelled_at: datetime | None = None


@dataclass(frozen=True)
class LabelledImage:
    """A Sample on its way into a snapshot, with the files that it names."""

    sample: Sample
    image: bytes
    mask: bytes | None = None


@dataclass(frozen=True)
class Snapshot:
    """An opened snapshot."""

    path: Path
    samples: tuple[Sample, ...]

    @property
    def digest(self) -> str:
        return self.path.name

    def read_image(self, sample: Sample) -> bytes:
        """The image file's bytes, checked. Raises SnapshotError."""
        return _read(self.path / "images" / sample.image_sha256, sample.image_sha256)

    def read_mask(self, sample: Sample) -> bytes | None:
        """The mask's PNG bytes, checked, or None. Raises SnapshotError."""
        if sample.mask_sha256 is None:
            return None
        return _read(self.path / "masks" / f"{sample.mask_sha256}.png", sample.mask_sha256)


def write_snapshot(root: Path, labelled: Iterable[LabelledImage]) -> Snapshot:
    """Write a snapshot and open it; the same samples give the same digest and are kept once.

    Raises SnapshotError when there is nothing to write, one image carries two labels, or a file
    is not the one that its sample names.
    """
    make_directory(root)
    # The digest, and so the name, is known only at the end: fill a neighbour, then rename.
    with tempfile.TemporaryDirectory(dir=root, prefix=".collecting-") as name:
        collected = Path(name) / "snapshot"
        with new_directory(collected) as temporary:
            samples = _write_files(temporary, labelled)
            lines = b"".join(sample.model_dump_json().encode() + b"\n" for sample in samples)
            write_file(temporary / SAMPLES, lines)
        path = root / hashlib.sha256(lines).hexdigest()
        with suppress(FileExistsError):  # the same samples, kept already
            rename_directory(collected, path)
    return open_snapshot(path)


def open_snapshot(path: Path) -> Snapshot:
    """Open a snapshot directory and check its digest. Raises SnapshotError."""
    try:
        lines = (path / SAMPLES).read_bytes()
    except OSError as error:
        raise SnapshotError(
            f"{path} is not a snapshot: {SAMPLES} cannot be read ({error.strerror}).",
            remedy="Make one with `kizu snapshot`.",
        ) from error
    if hashlib.sha256(lines).hexdigest() != path.resolve().name:
        raise SnapshotError(
            f"{path / SAMPLES} differs from the digest that names the snapshot.",
            remedy="Make or copy the snapshot again, and keep its directory's name.",
        )
    try:
        samples = tuple(Sample.model_validate_json(line) for line in lines.splitlines())
    except ValidationError as error:
        raise SnapshotError(f"{path / SAMPLES} holds no samples: {error}") from error
    return Snapshot(path.resolve(), samples)


def _write_files(directory: Path, labelled: Iterable[LabelledImage]) -> list[Sample]:
    (directory / "images").mkdir()
    (directory / "masks").mkdir()
    samples: dict[str, Sample] = {}
    for item in labelled:
        sample = item.sample
        if sample.image_sha256 in samples:
            raise SnapshotError(f"The image {sample.image_sha256} stands in the snapshot twice.")
        samples[sample.image_sha256] = sample
        _write_hashed(directory / "images" / sample.image_sha256, item.image, sample.image_sha256)
        if (sample.mask_sha256 is None) != (item.mask is None):
            raise SnapshotError(f"The image {sample.image_sha256} comes without the mask it names.")
        if sample.mask_sha256 is not None and item.mask is not None:
            mask = directory / "masks" / f"{sample.mask_sha256}.png"
            _write_hashed(mask, item.mask, sample.mask_sha256)
    if not samples:
        raise SnapshotError(
            "There are no labelled images to write.",
            remedy="Label some inspections first: POST /v1/feedback.",
        )
    return [samples[key] for key in sorted(samples)]


def _write_hashed(path: Path, data: bytes, sha256: str) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SnapshotError(f"The file for {path.name} differs from its hash.")
    write_file(path, data)


def _read(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SnapshotError(
            f"{path} differs from its hash.", remedy="Make or copy the snapshot again."
        )
    return data
