"""The whole loop, by its commands: fit, serve, inspect, label, snapshot, retrain, swap."""

import base64
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

BIN = Path(sys.executable).parent


class Plant:
    """A directory with a store, data and a running service, used as a person would."""

    def __init__(self, root, database):
        self.root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.environment = os.environ | {
            "KIZU_STORE": "store", "KIZU_DATA": "data", "KIZU_DATABASE": database,
            "KIZU_CACHE": "features", "KIZU_BACKBONES": "backbones",
            "KIZU_PORT": str(self.port), "KIZU_SCAN_SECONDS": "0.1",
        }  # fmt: skip

    def run(self, *command, code=0):
        done = subprocess.run(
            [BIN / command[0], *command[1:]], cwd=self.root, env=self.environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout.strip() if code == 0 else done.stderr

    def serve(self):
        process = subprocess.Popen(
            [BIN / "kizu", "serve"], cwd=self.root, env=self.environment,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for_line(process, "listening")
        return process

    def ask(self, path, data=None, media="application/json"):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": media} if data else {}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def inspect(self, image):
        return self.ask("/v1/inspect", image.read_bytes(), "image/jpeg")

    def label(self, **fields):
        return self.ask("/v1/feedback", json.dumps({"operator": "eva", **fields}).encode())


def stain(image, folder):
    """A part with a blotch of green ink, as (file, mask): a defect that any features see."""
    part = Image.open(image).convert("RGB")
    place = int(hashlib.sha256(image.read_bytes()).hexdigest(), 16) % 60 + 20
    blotch = Image.new("L", part.size)
    ImageDraw.Draw(blotch).ellipse((place, 100 - place, place + 26, 122 - place), fill=255)
    part.paste((20, 200, 40), mask=blotch)
    path = folder / f"stained-{image.name}"
    part.save(path, quality=95)
    mask = io.BytesIO()
    blotch.save(mask, "PNG")
    return path, mask.getvalue()


def wait_for_line(process, event):
    for line in process.stderr:
        if f'"event": "{event}"' in line:
            return
    raise AssertionError(f"the service ended before it said {event!r}")


@pytest.fixture
def plant(tmp_path, postgresql_url):
    """With PostgreSQL; with SQLite it is the engineer's way, and a newcomer's."""
    return Plant(tmp_path, postgresql_url)


def test_the_whole_loop(plant):
    plant.run("kizu-train", "demo-data", "demo", "--good", "30", "--test-good", "6",
              "--per-defect", "4", "--size", "128")  # fmt: skip
    fit = ("kizu-train", "fit", "demo", "--recipe", "cap", "--preset", "fast",
           "--size", "64", "--grid", "8", "--steps", "60")  # fmt: skip
    assert plant.run(*fit) == "store/cap/1"
    assert "agrees with its training" in plant.run("kizu", "bundle", "verify", "store/cap/1")

    process = plant.serve()
    try:
        demo = plant.root / "demo"
        for image in sorted((demo / "test" / "good").iterdir()):
            result = plant.inspect(image)
            assert result["bundle_version"] == 1
            plant.label(inspection_id=result["id"], verdict="ok")
            stained, mask = stain(image, plant.root)
            result = plant.inspect(stained)
            plant.label(inspection_id=result["id"], verdict="ng", defect_class="stain",
                        mask=base64.b64encode(mask).decode())  # fmt: skip

        snapshot = plant.run("kizu", "snapshot", "--recipe", "cap")
        retrain = ("kizu-train", "retrain", "--snapshot", snapshot, "--champion", "store/cap/1",
                   "--data", "demo", "--steps", "60")  # fmt: skip
        assert plant.run(*retrain) == "store/cap/2"
        wait_for_line(process, "candidate runs")  # the service takes it up by itself
        result = plant.inspect(demo / "test" / "scratch" / "000.jpg")
        assert result["bundle_version"] == 1

        plant.run("kizu", "bundle", "promote", "cap", "2", "--by", "eva", "--reason", "better")
        wait_for_line(process, "bundle decides")
        result = plant.inspect(demo / "test" / "scratch" / "000.jpg")
        assert result["bundle_version"] == 2

        plant.run("kizu", "bundle", "promote", "cap", "1", "--by", "eva", "--reason", "a drill")
        wait_for_line(process, "bundle decides")
        result = plant.inspect(demo / "test" / "scratch" / "000.jpg")
        assert result["bundle_version"] == 1
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode in (0, -15)
    restarted = plant.serve()
    try:
        assert plant.ask(f"/v1/inspections/{result['id']}") == result
        assert plant.inspect(demo / "test" / "good" / "000.jpg")["bundle_version"] == 1
    finally:
        restarted.terminate()
        restarted.communicate(timeout=60)
    figures = json.loads(plant.run("kizu-train", "evaluate", "demo", "--bundle", "store/cap/2"))
    assert figures["images"] == 18
    assert set(figures["verdicts"]) == {"ok", "review", "ng"}


FIT = "kizu-train fit . --recipe r"
IMPORT = "kizu-train backbone import none.onnx --name n --licence l --mean 0,0,0 --std 1,1,1"
BAD = {
    "kizu-train fit none --recipe r": "no folder none",
    "kizu-train fit . --recipe r --backbone none": "no backbone called 'none'",
    FIT: "no good images",
    "kizu-train retrain --snapshot . --champion store/r/1": "not a snapshot",
    "kizu bundle verify store/r/1": "not a bundle",
    "kizu snapshot": "no labelled images",
    "kizu snapshot --database nonsense": "cannot be opened",
    "kizu bundle promote r 1 --by eva --reason test": "no version 1",
    IMPORT: "no file none.onnx",
    "kizu serve --database nonsense": "cannot be opened",
    "kizu serve --device tpu": "KIZU_DEVICE 'tpu'",
    "kizu serve --host 203.0.113.1": "cannot be listened on",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_message_and_exit_2(tmp_path, command):
    plant = Plant(tmp_path, f"sqlite:///{tmp_path / 'kizu.sqlite3'}")
    shown = " ".join(plant.run(*command.split(), code=2).split())
    assert BAD[command] in shown
    assert "Traceback" not in shown
    assert not list(tmp_path.glob("store/*"))
