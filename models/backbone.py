"""Backbones: frozen feature extractors, one directory each with an ONNX file and its manifest.

The graph takes float32 (B, 3, H, W), RGB in 0..1, all of B, H and W dynamic; normalisation is
inside. Its outputs are named stages, each (B, channels, H / stride, W / stride).
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from models.contract import Contract
from models.durable import new_directory, write_file
from models.errors import BackboneError

MODEL = "backbone.onnx"
MANIFEST = "manifest.json"
EMBEDDED = Path(__file__).parent / "backbones"
PROCEDURAL = "procedural"  # the embedded backbone
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # timm's, such as resnet18.a1_in1k


class Stage(Contract):
    """One output of a backbone; `stride` in input pixels per cell. Where several are fused,
    `backbone` says whose it is."""

    name: str
    stride: int
    channels: int
    backbone: str = ""


class BackboneManifest(Contract):
    """What is known of a backbone: its stages, what it was trained on, and who may use it."""

    format_version: Literal[1] = 1
    name: str
    stages: tuple[Stage, ...]
    licence: str
    origin: str
    training_data: str
    sha256: str


@dataclass(frozen=True)
class Backbone:
    """An opened backbone: its manifest and the very bytes that the manifest vouches for."""

    manifest: BackboneManifest
    model: bytes


def open_backbone(directory: Path) -> Backbone:
    """Read a backbone and check its hash. Raises BackboneError."""
    try:
        manifest = BackboneManifest.model_validate_json((directory / MANIFEST).read_bytes())
        model = (directory / MODEL).read_bytes()
    except OSError as error:
        raise BackboneError(
            f"{directory} is not a backbone: {error.filename} cannot be read ({error.strerror})."
        ) from error
    except ValidationError as error:
        raise BackboneError(
            f"{directory / MANIFEST} is not a backbone's manifest: {error}"
        ) from error
    if hashlib.sha256(model).hexdigest() != manifest.sha256:
        raise BackboneError(
            f"{directory / MODEL} differs from the hash in its manifest.",
            remedy="Import or pull the backbone again.",
        )
    return Backbone(manifest, model)


def write_backbone(root: Path, manifest: BackboneManifest, model: bytes) -> Path:
    """Write a backbone as `root/<name>`. Raises BackboneError if the name is bad or taken."""
    if not NAME.fullmatch(manifest.name):
        raise BackboneError(
            f"{manifest.name!r} is not a backbone's name.",
            remedy="Use letters, digits, '.', '_' and '-', starting with a letter or digit.",
        )
    directory = root / manifest.name
    try:
        with new_directory(directory) as temporary:
            write_file(temporary / MODEL, model)
            write_file(temporary / MANIFEST, manifest.model_dump_json(indent=2).encode())
    except FileExistsError as error:
        raise BackboneError(
            f"The backbone {manifest.name!r} already exists in {root}.",
            remedy="Choose another --name, or remove that directory first.",
        ) from error
    return directory


def find_backbone(name: str, roots: tuple[Path, ...]) -> Backbone:
    """Open the backbone called `name` from the first root that has it. Raises BackboneError."""
    for root in roots:
        if (root / name / MANIFEST).is_file():
            return open_backbone(root / name)
    known = ", ".join(sorted(path.name for path in list_backbones(roots))) or "none"
    raise BackboneError(
        f"There is no backbone called {name!r} (there are: {known}).",
        remedy="Bring one with `kizu-train backbone pull` or `kizu-train backbone import`.",
    )


def list_backbones(roots: tuple[Path, ...]) -> list[Path]:
    """The directories of all backbones in `roots`; of equal names the first root's."""
    found: dict[str, Path] = {}
    for root in roots:
        for manifest in sorted(root.glob(f"*/{MANIFEST}")):
            if not manifest.parent.name.startswith("."):  # one that is being written
                found.setdefault(manifest.parent.name, manifest.parent)
    return list(found.values())
