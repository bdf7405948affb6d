"""The structure that DESIGN promises, as far as import-linter does not hold it already."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"service", "training", "models"}
TOP = PACKAGES | {"README.md", "pyproject.toml", "LICENSE", "docker", "tests", "deploy"}


def tracked():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [Path(line) for line in listed.splitlines()]


def test_the_top_level_is_fixed():
    assert {path.parts[0] for path in tracked() if not path.parts[0].startswith(".")} == TOP


def test_no_folder_is_a_drawer():
    drawers = {"utils", "util", "core", "common", "helpers"}
    assert not [path for path in tracked() if drawers & {part.split(".")[0] for part in path.parts}]


@pytest.mark.parametrize("package", ["torch", "fsspec", "ray", "paho", "asyncua"])
def test_a_service_of_one_computer_never_loads(package):
    code = f"import sys, service.app, service.cli; sys.exit({package!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
