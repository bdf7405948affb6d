"""Backbones: found by name, opened only with the very bytes that their manifest names."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.backbone import (
    MANIFEST,
    MODEL,
    BackboneManifest,
    Stage,
    find_backbone,
    list_backbones,
    open_backbone,
    write_backbone,
)
from models.durable import new_directory, write_file
from models.errors import BackboneError
from models.session import open_session


def manifest(model: bytes, name: str = "net") -> BackboneManifest:
    return BackboneManifest(
        name=name,
        stages=(Stage(name="stage1", stride=4, channels=3),),
        licence="MIT",
        origin="a test",
        training_data="none",
        sha256=hashlib.sha256(model).hexdigest(),
    )


@pytest.fixture
def directory(tmp_path: Path, extractor: bytes) -> Path:
    return write_backbone(tmp_path, manifest(extractor), extractor)


def test_what_is_written_is_opened_and_runs(
    directory: Path, tmp_path: Path, extractor: bytes
) -> None:
    assert directory == tmp_path / "net"
    backbone = open_backbone(directory)
    assert backbone.manifest == manifest(extractor)
    assert backbone.model == extractor
    images = np.random.default_rng(0).random((2, 3, 8, 12), np.float32)
    (stage,) = open_session(backbone.model, device="cpu").run(["stage1"], {"image": images})
    assert np.allclose(stage, images.reshape(2, 3, 2, 4, 3, 4).mean((3, 5)), atol=1e-6)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage", [flip, Path.unlink, replace_by_directory, lambda path: path.write_bytes(b"")]
)
def test_a_damaged_model_is_refused(directory: Path, damage: Callable[[Path], object]) -> None:
    damage(directory / MODEL)
    with pytest.raises(BackboneError, match=MODEL):
        open_backbone(directory)


@pytest.mark.parametrize("damage", [Path.unlink, replace_by_directory])
def test_a_directory_without_a_manifest_is_no_backbone(
    directory: Path, damage: Callable[[Path], object]
) -> None:
    damage(directory / MANIFEST)
    with pytest.raises(BackboneError, match=f"{MANIFEST} cannot be read"):
        open_backbone(directory)


def test_a_file_is_no_backbone(directory: Path) -> None:
    with pytest.raises(BackboneError, match="is not a backbone"):
        open_backbone(directory / MODEL)


@pytest.mark.parametrize(
    "change", [{"format_version": 2}, {"surprise": 1}, {"stages": [{}]}, {"licence": None}]
)
def test_an_edited_manifest_is_refused(directory: Path, change: dict[str, Any]) -> None:
    path = directory / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BackboneError, match="not a backbone's manifest"):
        open_backbone(directory)


def test_a_name_is_never_taken_twice(directory: Path, tmp_path: Path, extractor: bytes) -> None:
    with pytest.raises(BackboneError, match="already exists"):
        write_backbone(tmp_path, manifest(b"other"), b"other")
    assert open_backbone(directory).model == extractor
    assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.parametrize("name", ["", ".", "../net", "a/b", ".net", "net\n", "/net"])
def test_a_name_that_is_no_file_name_is_refused(
    tmp_path: Path, extractor: bytes, name: str
) -> None:
    root = tmp_path / "root"
    with pytest.raises(BackboneError, match="not a backbone's name"):
        write_backbone(root, manifest(extractor, name), extractor)
    assert list(tmp_path.iterdir()) == []


def test_timms_names_are_accepted(tmp_path: Path, extractor: bytes) -> None:
    name = "vit_base_patch14_dinov2.lvd142m-B"
    assert write_backbone(tmp_path, manifest(extractor, name), extractor).name == name


def test_the_first_root_wins(tmp_path: Path) -> None:
    first, second = roots = (tmp_path / "first", tmp_path / "second")
    for root, name in ((first, "net"), (second, "net"), (second, "other")):
        model = f"{root.name} {name}".encode()
        write_backbone(root, manifest(model, name), model)
    assert list_backbones(roots) == [first / "net", second / "other"]
    assert find_backbone("net", roots).model == b"first net"
    assert find_backbone("other", roots).model == b"second other"


def test_an_unknown_name_says_which_there_are(tmp_path: Path, directory: Path) -> None:
    with pytest.raises(BackboneError, match=r"called 'nett' \(there are: net\)"):
        find_backbone("nett", (tmp_path / "missing", tmp_path))
    with pytest.raises(BackboneError, match="there are: none"):
        find_backbone("net", ())


def test_a_backbone_that_is_being_written_is_not_listed(tmp_path: Path, directory: Path) -> None:
    with new_directory(tmp_path / "other") as temporary:
        write_file(temporary / MANIFEST, b"{}")
        assert list_backbones((tmp_path,)) == [directory]
    assert list_backbones((tmp_path,)) == [directory, tmp_path / "other"]
