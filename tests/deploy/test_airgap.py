"""Kizu carried to a PC without a network, by an engine that is a script here."""

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
IMAGES = ["kizu-proxy:local", "kizu:local-cpu", "postgres:17-bookworm"]
ENGINE = """#!/bin/sh
echo "$@" >> "$LOG"
case "$1" in
    compose) cat "$CONFIG" ;;
    save) shift; echo "$@" ;;
    volume) [ "$2" != inspect ] ;;
    run) cat > "$LOG.store" ;;
esac
"""


@pytest.fixture
def airgap(tmp_path, monkeypatch):
    """Runs the script of a folder."""
    engine = tmp_path / "bin" / "docker"
    engine.parent.mkdir()
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    config = tmp_path / "config.json"  # compose prints YAML, of which JSON is a kind
    services = {name: {"image": name} for name in IMAGES}
    config.write_text(json.dumps({"services": services}, indent=2).replace('"image"', "image"))
    monkeypatch.setenv("PATH", f"{engine.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("CONFIG", str(config))

    def run(folder, *arguments):
        return subprocess.run(
            ["bash", folder / "airgap.sh", *arguments], capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def packed(airgap, tmp_path):
    """What lies on the PC after the file was unpacked there."""
    here = tmp_path / "here"
    shutil.copytree(DEPLOY, here, ignore=shutil.ignore_patterns("secrets", ".env"))
    (here / "secrets").mkdir()
    (here / "secrets" / "postgres_password").write_text("of another PC")
    (here / "connect").mkdir()
    (here / "connect" / "kizu.key").write_text("of another PC")
    (here / ".env").write_text("KIZU_NAME=elsewhere")
    bundle = tmp_path / "store" / "cap" / "1" / "manifest.json"
    bundle.parent.mkdir(parents=True)
    bundle.write_text("{}")
    done = airgap(here, "pack", str(tmp_path / "kizu.tgz"), str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "kizu.tgz") as file:
        file.extractall(tmp_path / "there", filter="data")
    assert sorted(path.name for path in tmp_path.glob("tmp.*")) == []
    return tmp_path / "there" / "kizu"


def test_all_images_of_compose_are_packed_and_loaded(airgap, packed, tmp_path):
    assert (packed / "images.tar").read_text().split() == IMAGES
    done = airgap(packed, "load")
    assert done.returncode == 0, done.stderr
    assert "load --input images.tar" in (tmp_path / "log").read_text()
    with tarfile.open(tmp_path / "log.store") as store:
        assert "./cap/1/manifest.json" in store.getnames()
    assert "up --detach --no-build --pull never" in done.stdout


def test_passwords_and_settings_are_made_there_once(airgap, packed):
    assert not (packed / "secrets").exists()
    assert not (packed / "connect").exists()
    assert not (packed / ".env").exists()
    assert airgap(packed, "load").returncode == 0
    password = (packed / "secrets" / "postgres_password").read_text()
    assert password != "of another PC"
    (packed / ".env").write_text("COMPOSE_PROFILES=cpu\nKIZU_NAME=kizu.plant\n")
    assert airgap(packed, "load").returncode == 0
    assert (packed / "secrets" / "postgres_password").read_text() == password
    assert "KIZU_NAME=kizu.plant" in (packed / ".env").read_text()


def test_more_than_one_profile_is_packed_and_set_there(airgap, packed, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPOSE_PROFILES", "gpu,connect")
    assert airgap(packed, "pack", str(tmp_path / "more.tgz")).returncode == 0
    assert airgap(packed, "load").returncode == 0
    said = (tmp_path / "log").read_text()
    assert "--profile gpu --profile connect config" in said
    assert "kizu:local-gpu tar" in said
    assert "COMPOSE_PROFILES=gpu,connect\n" in (packed / ".env").read_text()


@pytest.mark.parametrize("name", ["images.tar", "bundles.tar", "compose.yaml"])
def test_what_was_damaged_on_its_way_is_not_loaded(airgap, packed, tmp_path, name):
    (tmp_path / "log").unlink()
    with (packed / name).open("ab") as file:
        file.write(b"\0")
    done = airgap(packed, "load")
    assert done.returncode == 1
    assert "damaged on its way" in done.stderr
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("arguments", [[], ["pack"], ["unpack", "x"]])
def test_how_to_use_it_is_said(airgap, arguments):
    done = airgap(DEPLOY, *arguments)
    assert done.returncode == 2
    assert "airgap.sh pack FILE" in done.stderr
