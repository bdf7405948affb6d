"""Every relative link of every Markdown file leads to a file, and to a heading of it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Folders of this repository alone: what was installed or made beside them is somebody else's.
FOLDERS = ("models", "training", "service", "docker", "deploy", "tests")
FILES = sorted([ROOT / "README.md", *(f for d in FOLDERS for f in (ROOT / d).rglob("*.md"))])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def prose(text):
    """Without what is code: there brackets are no links, and # begins a comment."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^( *)```.*?^\1```", "", text, flags=re.M | re.S))


def anchors(file):
    """Of its headings, as GitHub makes them; the same one again is numbered."""
    found, seen = set(), {}
    for heading in re.findall(r"^#+ +(.+?) *$", re.sub(r"(?ms)^```.*?^```", "", file), re.M):
        shown = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = seen.get(shown, 0)
        seen[shown] = count + 1
        found.add(f"{shown}-{count}" if count else shown)
    return found


def links():
    for file in FILES:
        for target in LINK.findall(prose(file.read_text("utf-8"))):
            if not re.match(r"[a-z]+:", target):
                yield file.relative_to(ROOT).as_posix(), target


@pytest.mark.parametrize(("file", "target"), list(links()))
def test_a_link_leads_somewhere(file, target):
    name, _, anchor = target.partition("#")
    place = (ROOT / file).parent / name if name else ROOT / file
    assert place.exists()
    assert place.resolve().is_relative_to(ROOT)
    if anchor:
        assert anchor in anchors(place.read_text("utf-8"))


def test_there_are_links():
    assert len(list(links())) > 80
