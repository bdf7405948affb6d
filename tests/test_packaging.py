"""What is built from a checkout: it installs what its extras name, and says what it is."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.commit import commit
from service.cli import app as kizu
from training.cli.main import app as kizu_train

ROOT = Path(__file__).parents[1]


def test_both_commands_say_version_commit_and_bundle_format():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for app in (kizu, kizu_train):
        said = CliRunner().invoke(app, ["--version"])
        assert said.exit_code == 0
        assert said.stdout == f"kizu {version} ({commit()}, bundle format 1)\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A source archive, and a wheel that was made of it, as a package index would have them."""
    out = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT], check=True
    )
    return out


def test_the_wheel_knows_its_commit_and_has_the_console(built):
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as wheel:
        assert wheel.read("models/COMMIT").decode().strip() == commit()
        names = set(wheel.namelist())
    assert {"service/web/index.html", "service/store/migrations/env.py"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "models", "service", "training",
    }  # fmt: skip


def test_the_archive_has_what_the_licence_asks_for_and_nothing_local(built):
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "models/COMMIT"} <= names
    assert [name for name in names if name.startswith(("deploy/secrets/", ".venv", ".kizu"))] == []
