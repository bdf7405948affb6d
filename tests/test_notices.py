"""Every package that Kizu stands on is named with the licence that its metadata tells."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTICES = (ROOT / "deploy" / "NOTICES.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NOT_SHIPPED = ("dev", "benchmark")
SHORT = 60  # in older metadata the whole text of a licence can stand in its place


def packages():
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    needed = [one for name, group in groups.items() if name not in NOT_SHIPPED for one in group]
    return [re.match(r"[\w.-]+", one)[0] for one in needed]


def licence(package):
    """As the metadata says it: by its expression, its field, or its classifiers."""
    told = metadata.metadata(package)
    if told["License-Expression"]:
        return told["License-Expression"]
    written = told["License"] or ""
    if written and "\n" not in written and len(written) < SHORT:
        return written
    kinds = [kind for kind in told.get_all("Classifier") or [] if kind.startswith("License")]
    return " or ".join(kind.rpartition(" :: ")[2] for kind in kinds)


@pytest.mark.parametrize("package", packages())
def test_every_package_is_named_with_its_licence(package):
    row = re.search(rf"^\| {re.escape(package)} \| ([^|]+) \|", NOTICES, re.M)
    assert row, f"{package} is missing"
    try:
        told = licence(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed here: its licence cannot be read")
    assert row[1] == told


def test_nothing_is_named_that_is_not_needed():
    rows = re.findall(r"^\| ([\w.-]+) \| [^|]+ \| [^|]+ \| [^|]+ \|$", NOTICES, re.M)
    assert sorted(set(rows) - {"package", "---"}) == sorted(packages())
