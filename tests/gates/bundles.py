"""Bundles and archives that somebody has tampered with: all are refused."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.bundle import FILES, MANIFEST, open_bundle
from models.errors import KizuError
from service.backup import back_up, restore
from service.store.database import open_database
from service.store.local_blobs import LocalBlobs
from tests.gates.gate import Findings
from tests.grey_parts import write_version

SLIPS = ("../slipped", "/tmp/slipped", "a/../../slipped", "..\\slipped", "blobs/../../../slipped")


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """Every file of a bundle spoiled in every way, and every way out of an archive."""
    found = Findings(seed=8)
    rng = np.random.default_rng(found.seed)
    flips = 2000 if full else 40
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = write_version(folder / "whole")
        for number, file in enumerate(FILES):
            for _ in range(flips):
                _spoil(found, whole, file, "a bit turned", lambda path: _turn_a_bit(path, rng))
            for what, change in _CHANGES.items():
                _spoil(found, whole, file, what, change)
            progress(0.8 * (number + 1) / len(FILES))
        for what, change in _CHANGES.items():
            _spoil(found, whole, MANIFEST, what, change)
        _spoil_names(found, whole)
        _slip(found, folder, whole)
    progress(1.0)
    return found


def _spoil(
    found: Findings, whole: Path, file: str, what: str, change: Callable[[Path], object]
) -> None:
    copy = whole.parent.parent.parent / "spoiled" / whole.parent.name / whole.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole, copy)
    change(copy / file)
    _refused(found, copy, f"{file}: {what}")


def _refused(found: Findings, bundle: Path, what: str) -> None:
    found.count("tampered bundles")
    try:
        open_bundle(bundle)
    except KizuError:
        return
    found.fail(f"{what}: it was opened")


def _turn_a_bit(path: Path, rng: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(data))


def _link(path: Path) -> None:
    elsewhere = path.parent.parent / f"elsewhere-{path.name}"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def _hard_link(path: Path) -> None:
    elsewhere = path.parent.parent / f"other-{path.name}"
    elsewhere.write_bytes(b"another content")
    path.unlink()
    os.link(elsewhere, path)


_CHANGES: dict[str, Callable[[Path], object]] = {
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link": _link,
    "a hard link to something else": _hard_link,
}


def _spoil_names(found: Findings, whole: Path) -> None:
    text = (whole / MANIFEST).read_text()
    for old, new in (
        ('"recipe": "cap"', '"recipe": "../cap"'),
        ('"recipe": "cap"', '"recipe": "/cap"'),
        ('"version": 1', '"version": 2'),
        ('"model.onnx"', '"../model.onnx"'),
        ('"model.onnx"', '"/etc/passwd"'),
        ('"golden.npz"', '"golden.npz/../golden.npz"'),
    ):
        assert old in text, old
        changed = text.replace(old, new, 1)
        _spoil(found, whole, MANIFEST, new, lambda path, to=changed: path.write_text(to))


def _slip(found: Findings, folder: Path, whole: Path) -> None:
    """Backups whose entries would leave the directory."""
    engine = open_database(f"sqlite:///{folder / 'kizu.sqlite3'}")
    try:
        blobs = LocalBlobs(folder / "blobs")
        archive = folder / "cap.kizu"
        back_up(engine, blobs, whole.parent.parent, "cap", archive, lambda text: None)
        for name in SLIPS:
            spoilt = folder / "spoilt.kizu"
            shutil.copy(archive, spoilt)
            with zipfile.ZipFile(spoilt, "a") as written:
                written.writestr(name, b"slipped")
            target = folder / "target" / "store"
            shutil.rmtree(target.parent, ignore_errors=True)
            target.mkdir(parents=True)
            other = open_database(f"sqlite:///{target.parent / 'kizu.sqlite3'}")
            found.count("archives that slip")
            try:
                restore(
                    other, LocalBlobs(target.parent / "blobs"), target, spoilt, lambda text: None
                )
                found.fail(f"{name}: it was restored")
            except KizuError:
                pass
            finally:
                other.dispose()
            if list(folder.rglob("slipped")) or Path("/tmp/slipped").exists():
                found.fail(f"{name}: it slipped out")
    finally:
        engine.dispose()
