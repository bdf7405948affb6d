"""The README's way from a clone to a model that learned from labels, command by command."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.data.demo_product import draw_good

ROOT = Path(__file__).parent.parent
MOST = 12
SIDE = 128


def commands():
    """The README's, with continued lines as one."""
    [block] = re.findall(
        r"<!-- newcomer -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S
    )
    return block.replace("\\\n", "").strip().splitlines()


def draw(path, number, *, stained=False):
    """A part of its own; stained, with a blotch of green ink and the mask of that."""
    rng = np.random.default_rng([20, number])
    part = Image.fromarray(draw_good(rng, SIDE))
    path.parent.mkdir(parents=True, exist_ok=True)
    if stained:
        x, y = rng.integers(30, 72, 2)
        blotch = Image.new("L", part.size)
        ImageDraw.Draw(blotch).ellipse((x, y, x + 26, y + 22), fill=255)
        part.paste((20, 200, 40), mask=blotch)
        mask = path.parents[2] / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        if path.parent.name == "stain":
            mask.parent.mkdir(parents=True, exist_ok=True)
            blotch.save(mask)
    part.save(path, quality=95)


@pytest.fixture
def home(tmp_path):
    """Somebody's folder of images, and a clean copy of the repository."""
    for number in range(30):
        draw(tmp_path / "parts" / "train" / "good" / f"{number:03}.jpg", number)
    for number in range(100, 106):
        draw(tmp_path / "parts" / "test" / "good" / f"{number}.jpg", number)
        draw(tmp_path / "parts" / "test" / "stain" / f"{number}.jpg", 100 + number, stained=True)
    draw(tmp_path / "new.jpg", 300, stained=True)
    (tmp_path / "kizu").mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in listed.strip("\0").split("\0"):
        if (ROOT / name).exists():
            (tmp_path / "kizu" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / "kizu" / name)
    return tmp_path


def test_a_newcomer_gets_there_in_twelve_commands(home):
    """Word for word, but for the installation, which this test's own takes the place of, and the
    port."""
    asked = commands()
    assert len(asked) <= MOST
    assert asked[0].startswith("cd kizu")
    assert "pip install" in asked[1]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = "\n".join(asked[:1] + asked[2:]).replace("8000", str(port))
    script = script.replace("kizu serve", f"kizu serve --port {port}")
    script = script.replace("kizu import", f"kizu import --url http://127.0.0.1:{port}")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KIZU_")}
    environment = kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHONPATH": str(home / "kizu"),  # what `pip install -e` does
    }
    # Into a file: a pipe would be open for as long as the service is, which runs on.
    with (home / "said.txt").open("wb") as listening:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script], cwd=home, env=environment,
            stdout=listening, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        process.wait(240)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
    said = (home / "said.txt").read_text()
    assert process.returncode == 0, said
    first, learned = (
        json.loads((home / "kizu" / name).read_bytes()) for name in ("verdict.json", "learned.json")
    )
    # Thirty parts may be too few to reject any without a person's look.
    for found, version in ((first, 1), (learned, 2)):
        assert found["verdict"] in ("review", "ng")
        assert found["bundle_version"] == version
    assert "cap: version 2 decides" in said
