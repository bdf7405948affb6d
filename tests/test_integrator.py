"""The integrator's examples are run, in their order, against a service that asks for a key."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy.orm import Session

from service.app import create_app
from service.settings import Settings
from service.store import accounts
from service.store.database import open_database
from tests.grey_parts import HEIGHT, WIDTH, image, write_version
from tests.listening import listening

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "service" / "INTEGRATOR.md").read_text("utf-8")
BLOCK = re.compile(r"^( *)<!-- tested -->\n\1```(bash|python)\n(.*?)^\1```", re.M | re.S)


@pytest.fixture
def place(tmp_path):
    """Where somebody tries the examples: a part that is defective, and a good one as a buffer."""
    (tmp_path / "part.jpg").write_bytes(image(160, "JPEG"))
    (tmp_path / "frame.raw").write_bytes(bytes([50]) * (WIDTH * HEIGHT))
    return tmp_path


@pytest.fixture
def service(tmp_path):
    """Where it listens, and an engineer's key."""
    write_version(tmp_path / "store")
    settings = Settings(store=tmp_path / "store", data=tmp_path / "data")
    settings.data.mkdir()
    database = open_database(settings.database_url)
    with Session(database) as session, session.begin():
        key = accounts.add_key(session, "trial", "engineer")
    database.dispose()
    app = create_app(settings)
    with listening(app) as (host, port):
        yield f"{host}:{port}", key
        app.state.live.close()


def run(language, code, place, service):
    address, key = service
    code = textwrap.dedent(code).replace("127.0.0.1:8000", address)
    command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
    environment = os.environ | {
        "KIZU_KEY": key,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        [*command, code], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_run(place, service):
    said = [run(language, code, place, service) for _, language, code in BLOCK.findall(GUIDE)]

    def answer(name):
        return json.loads((place / name).read_bytes())

    first, client, bare, raw, batch, product, label, feed, triton = said
    result = answer("result.json")
    assert json.loads(first) == result
    assert (result["verdict"], result["part_id"], result["camera"]) == ("ng", "A7", "cam1")
    with Image.open(place / "overlay.jpg") as overlay:
        assert overlay.size == (WIDTH, HEIGHT)
    assert client.startswith("ng [Box(x=0")
    assert bare == "ng\n"
    assert (raw, answer("raw.json")["verdict"]) == ("", "ok")
    assert (batch, [item["problem"] for item in answer("batch.json")["items"]]) == ("", [None] * 2)
    assert (product, answer("revision.json")["settings"]["product"]) == ("", "can")
    assert (answer("whole.json")["product"], answer("whole.json")["verdict"]) == ("can", "ng")
    assert label == ""
    assert [line.split()[-2:] for line in feed.splitlines()] == [
        ["A7", "ng"], ["A8", "ng"], ["A9", "ng"], ["None", "ok"], ["A11", "ng"], ["A11", "ng"],
    ]  # fmt: skip
    assert np.array_equal(np.fromstring(triton.strip(" []\n"), sep=" "), np.zeros(2))


def test_all_fields_of_the_answer_that_is_shown_are_given(place, service):
    _, language, code = BLOCK.findall(GUIDE)[0]
    run(language, code, place, service)
    found = json.loads((place / "result.json").read_bytes())
    shown = json.loads(re.search(r"shortened:\n\n```json\n(.*?)```", GUIDE, re.S)[1])
    assert shown.keys() <= found.keys()
    assert shown["thresholds"].keys() == found["thresholds"].keys()
    assert shown["processing_times"].keys() == found["processing_times"].keys()
    assert shown["regions"] == found["regions"]
