"""Bundles: written whole or not at all, and opened only as they were written."""

import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from models.bundle import (
    CHECKPOINT,
    FILES,
    GOLDEN,
    MANIFEST,
    MODEL,
    REPORT,
    TRAINED_ON,
    BackboneReference,
    Bundle,
    Calibration,
    Manifest,
    Thresholds,
    check_recipe_name,
    list_recipes,
    list_versions,
    open_bundle,
    write_bundle,
)
from models.durable import new_directory, write_file
from models.errors import BundleError
from models.golden import Golden
from models.image import InputSize, PixelContract
from models.session import open_session

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)


def manifest(**fields: Any) -> Manifest:
    return Manifest(
        **{
            "recipe": "cap",
            "version": 1,
            "created_at": datetime(2025, 1, 2, tzinfo=UTC),
            "origin": "fit",
            "method": "test",
            "input": InputSize(height=4, width=4),
            "pixels": PixelContract(),
            "calibration": Calibration(
                count=9,
                groups=9,
                review_interval=(0.0, 0.1),
                reject_interval=(0.0, 0.05),
                counted=False,
                automatic_reject=True,
                quantiles=tuple(i / 100 for i in range(101)),
                false_review_rate=0.05,
                false_reject_rate=0.01,
                resolvable_false_reject=0.1,
            ),
            "thresholds": Thresholds(review=0.5, ng=0.9),
            "backbone": BackboneReference(name="net", sha256="0" * 64, licence="MIT"),
            "metrics": {"image_auroc": 1.0},
            "sha256": {},
            **fields,
        }
    )


@pytest.fixture
def files(scorer: bytes) -> dict[str, bytes]:
    outputs = open_session(scorer, device="cpu").run(["score", "heatmap"], {"image": IMAGES})
    return {
        MODEL: scorer,
        CHECKPOINT: b"weights",
        GOLDEN: Golden(IMAGES, *outputs).to_bytes(),
        TRAINED_ON: b"0" * 64,
        REPORT: b"<html></html>",
    }


@pytest.fixture
def bundle(tmp_path: Path, files: dict[str, bytes]) -> Bundle:
    return open_bundle(write_bundle(tmp_path, manifest(), files))


def test_what_is_written_is_opened(bundle: Bundle, tmp_path: Path, files: dict[str, bytes]) -> None:
    assert bundle.path == tmp_path / "cap" / "1"
    assert {name: bundle.read(name) for name in FILES} == files
    assert bundle.manifest.model_copy(update={"sha256": {}}) == manifest()
    assert bundle.digest == hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest()
    assert {path.name for path in bundle.path.iterdir()} == {MANIFEST, *FILES}


def test_its_graph_agrees_with_its_golden_vectors(bundle: Bundle) -> None:
    golden = Golden.from_bytes(bundle.read(GOLDEN))
    session = open_session(bundle.read(MODEL), device="cpu")
    outputs = session.run(["score", "heatmap"], {"image": golden.images})
    assert golden.disagreement(*outputs) is None


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def link(path: Path) -> None:
    path.symlink_to(path.rename(path.parent.parent / path.name))


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip, lengthen, Path.unlink, link, replace_by_directory])
def test_a_damaged_file_is_found(
    bundle: Bundle, name: str, damage: Callable[[Path], object]
) -> None:
    damage(bundle.path / name)
    with pytest.raises(BundleError, match=name):
        open_bundle(bundle.path)
    with pytest.raises(BundleError, match=name):  # also after it was opened
        bundle.read(name)


@pytest.mark.parametrize("damage", [flip, Path.unlink, link, replace_by_directory])
def test_a_damaged_manifest_is_found(bundle: Bundle, damage: Callable[[Path], object]) -> None:
    damage(bundle.path / MANIFEST)
    with pytest.raises(BundleError, match=MANIFEST):
        open_bundle(bundle.path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sha256": {}}, "does not list exactly"),
        ({"sha256": dict.fromkeys([*FILES, "../../other"], "0" * 64)}, "does not list exactly"),
        ({"sha256": dict.fromkeys(FILES, "0" * 64)}, "differs from the hash"),
        ({"format_version": 2}, "not a bundle's manifest"),
        ({"surprise": 1}, "not a bundle's manifest"),
        ({"metrics": {"auroc": float("nan")}}, "not a bundle's manifest"),
        ({"thresholds": {"review": float("inf"), "ng": 1.0}}, "not a bundle's manifest"),
        ({"version": 2}, "holds version 2"),
        ({"recipe": "lid"}, "of 'lid'"),
    ],
)
def test_an_edited_manifest_is_refused(bundle: Bundle, change: dict[str, Any], why: str) -> None:
    path = bundle.path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=why):
        open_bundle(bundle.path)


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"[]", b"null"])
def test_a_manifest_that_is_none_is_refused(bundle: Bundle, text: bytes) -> None:
    (bundle.path / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match="not a bundle's manifest"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("place", ["lid/1", "cap/2", "cap/01", "cap/1/1"])
def test_a_bundle_in_another_place_is_refused(bundle: Bundle, tmp_path: Path, place: str) -> None:
    moved = bundle.path.rename(tmp_path / "moved")
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    with pytest.raises(BundleError, match="holds version 1 of 'cap'"):
        open_bundle(moved.rename(tmp_path / place))


def test_a_bundle_is_opened_by_a_relative_path(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory, path in ((bundle.path, Path()), (bundle.path.parent, Path("1"))):
        monkeypatch.chdir(directory)
        assert open_bundle(path).digest == bundle.digest


def test_a_version_is_never_written_twice(
    bundle: Bundle, tmp_path: Path, files: dict[str, bytes]
) -> None:
    with pytest.raises(BundleError, match="already exists"):
        write_bundle(tmp_path, manifest(), files | {REPORT: b"new"})
    assert open_bundle(bundle.path).digest == bundle.digest
    assert list(bundle.path.parent.iterdir()) == [bundle.path]


def test_of_concurrent_writers_of_a_version_exactly_one_wins(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    barrier = threading.Barrier(8)

    def write(writer: int) -> bool:
        barrier.wait(timeout=60)
        try:
            write_bundle(tmp_path, manifest(), files | {REPORT: str(writer).encode()})
        except BundleError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert open_bundle(tmp_path / "cap" / "1").read(REPORT) == str(won.index(True)).encode()
    assert [path.name for path in (tmp_path / "cap").iterdir()] == ["1"]


@pytest.mark.parametrize("recipe", ["", "Cap", "-cap", "../cap", "a/b", ".cap", "cap\n", "a" * 64])
def test_a_bad_recipe_name_is_refused(tmp_path: Path, files: dict[str, bytes], recipe: str) -> None:
    with pytest.raises(BundleError, match="not a recipe name"):
        write_bundle(tmp_path, manifest(recipe=recipe), files)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", ["a", "0", "cap-m8_left", "a" * 63])
def test_a_good_recipe_name_is_accepted(recipe: str) -> None:
    check_recipe_name(recipe)


def test_a_missing_or_unknown_file_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    lacking = {name: data for name, data in files.items() if name != REPORT}
    for wrong in (lacking, files | {"notes.txt": b""}, {}):
        with pytest.raises(BundleError, match="holds exactly"):
            write_bundle(tmp_path, manifest(), wrong)
    assert list(tmp_path.iterdir()) == []


def test_the_lists_show_finished_versions_only(tmp_path: Path, files: dict[str, bytes]) -> None:
    assert list_recipes(tmp_path / "no store") == []
    assert list_versions(tmp_path, "cap") == []
    for recipe, version in (("lid", 10), ("lid", 9), ("cap", 1)):
        write_bundle(tmp_path, manifest(recipe=recipe, version=version), files)
    (tmp_path / "empty" / "1").mkdir(parents=True)
    (tmp_path / "lid" / "notes").mkdir()
    (tmp_path / "README").write_text("no recipe")
    with new_directory(tmp_path / "lid" / "11") as temporary:
        write_file(temporary / MANIFEST, b"{}")
        assert list_versions(tmp_path, "lid") == [9, 10]
        assert list_recipes(tmp_path) == ["cap", "lid"]
    assert list_versions(tmp_path, "lid") == [9, 10, 11]


@pytest.mark.parametrize(
    ("score", "verdict"),
    [(-1.0, "ok"), (0.4999, "ok"), (0.5, "review"), (0.8999, "review"), (0.9, "ng"), (99.0, "ng")],
)
def test_a_threshold_belongs_to_the_worse_verdict(score: float, verdict: str) -> None:
    assert Thresholds(review=0.5, ng=0.9).verdict(score) == verdict


def test_a_manifest_is_frozen_and_counts_from_1() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        manifest().version = 2  # type: ignore[misc]
    for version in (0, -1):
        with pytest.raises(ValidationError, match="version"):
            manifest(version=version)
