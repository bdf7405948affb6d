"""The service on Ray: the same answers, by engines elsewhere, which may go."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import pytest

from service.cluster.pools import Pools
from service.settings import Settings, SettingsError
from tests.conftest import new_database
from tests.grey_parts import PNG, image, write_version
from tests.object_store import bucket

KIZU = Path(sys.executable).with_name("kizu")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory, postgresql, store_process):
    """Two fronts and two engines on three nodes; `box` has an engine of its own."""
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("cluster")
    with bucket(store_process) as made:
        shared = made.environment | {
            "KIZU_DATABASE": new_database(postgresql),
            "KIZU_BLOBS": f"{made.address}/images",
            "KIZU_BUNDLES": f"{made.address}/bundles",
        }
        for recipe in ("cap", "box"):
            bundle = write_version(folder / "made", recipe=recipe)
            subprocess.run([KIZU, "bundle", "send", bundle], env=os.environ | shared, check=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.nodes", folder], env=os.environ | shared,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        process.folder = folder
        yield process
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def said(process, what):
    """Ray writes there, too."""
    for line in process.stdout:
        if line.startswith(f'{{"{what}"'):
            return json.loads(line)[what]
    raise AssertionError("it ended")


@pytest.fixture(scope="module")
def client(nodes):
    with httpx.Client(base_url=f"http://127.0.0.1:{said(nodes, 'port')}", timeout=60) as client:
        yield client


def ask(client, grey, recipe="cap"):
    return client.post("/v1/inspect", content=image(grey), params={"recipe": recipe}, headers=PNG)


def test_the_answers_are_those_of_one_computer(client):
    for _ in range(4):  # both fronts
        ready = client.get("/health/ready")
        assert ready.status_code == 200, ready.text
        assert set(ready.json()["recipes"]) == {"cap", "box"}
    for grey, verdict in ((50, "ok"), (120, "review"), (200, "ng")):
        for recipe in ("cap", "box"):
            answer = ask(client, grey, recipe).raise_for_status().json()
            assert (answer["verdict"], answer["score"]) == (verdict, grey)
    assert client.get(answer["heatmap"]).status_code == 200
    assert ask(client, 50, "none").status_code == 404


def test_two_fronts_are_one_to_who_asks(client, nodes):
    parts = [ask(client, grey).raise_for_status().json() for grey in range(40, 60)]
    for part in parts:
        assert client.get(part["image"]).status_code == 200
    counted = [read_total(client) for _ in range(10)]
    assert max(counted) < len(parts)  # each counts what came to it
    disks = [path for path in nodes.folder.iterdir() if (path / "store" / "cap" / "1").is_dir()]
    assert {path.name for path in disks} >= {"head", "worker-1"}


def read_total(client):
    """How many `cap`s the front that happens to answer has passed."""
    (line,) = (
        line for line in client.get("/metrics").text.splitlines()
        if line.startswith('kizu_inspections_total{recipe="cap",verdict="ok"}')
    )  # fmt: skip
    return float(line.split()[-1])


def test_a_node_that_goes_takes_no_image_with_it(client, nodes):
    statuses = []

    def camera():
        while not gone.is_set() or len(statuses) < 200:
            statuses.append(ask(client, 50).status_code)

    gone = threading.Event()
    with ThreadPoolExecutor(4) as cameras:
        running = [cameras.submit(camera) for _ in range(4)]
        nodes.stdin.write("kill\n")
        nodes.stdin.flush()
        assert said(nodes, "killed")
        gone.set()
    for one in running:
        one.result()
    assert set(statuses) == {200}


# In a process of its own: Ray's imports warn of much that is its own.
UNPACK = """
import sys
from pathlib import Path
from models.bundle import open_bundle
from models.errors import BundleError
from service.cluster.shelf import packed, unpacked
bundle = open_bundle(Path(sys.argv[1]))
files = packed(bundle)
with unpacked(files, "cap", 1, bundle.digest) as arrived:
    print(arrived.digest == bundle.digest)
for wrong, digest in ((files, "0" * 64), (files | {"model.onnx": b"another"}, bundle.digest)):
    try:
        with unpacked(wrong, "cap", 1, digest):
            print("taken")
    except BundleError as error:
        print(error.message.rpartition("/")[2])
"""


def test_an_engine_takes_no_other_bundle_than_the_fronts(tmp_path):
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-c", UNPACK, write_version(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "True",
        "What arrived is not version 1 of 'cap'.",
        "model.onnx differs from the hash in its manifest.",
    ]


def test_pools_that_leave_a_recipe_nowhere_are_refused():
    with pytest.raises(SettingsError, match="Exactly one pool"):
        Pools.model_validate({"pools": [{"name": "a", "recipes": ["cap"]}]}).check(Settings())
    with pytest.raises(SettingsError, match="one name"):
        Pools.model_validate({"pools": [{"name": "a"}, {"name": "a"}]}).check(Settings())
    with pytest.raises(SettingsError, match="Several fronts"):
        Pools(fronts=2).check(Settings())
    Pools(fronts=2).check(
        Settings(database="postgresql+psycopg://k@p/k", blobs="s3://k/i", bundles="s3://k/b")
    )
