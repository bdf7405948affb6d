"""A device that no longer does what it did is found out and given up, and never says ok."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from models.image import encode_png
from service import watchdog
from service.app import create_app
from service.engine import FakeEngine, Outputs
from service.errors import EngineFailure, NotReady
from service.onnx_engine import OnnxDevice
from service.settings import Settings
from tests.grey_parts import write_version
from tests.waiting import until

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

JPEG = {"content-type": "image/jpeg"}


class Failing:
    """The bundle's own engine, until `how` says how it fails."""

    def __init__(self, engine):
        self._engine = engine
        self.device = engine.device
        self.how = "not"
        self.free = threading.Event()

    def run(self, images):
        outputs = self._engine.run(images)
        if self.how == "wrong":
            return Outputs(outputs.scores - 1, outputs.heatmaps)
        if self.how == "errs":
            raise EngineFailure("The bus has fallen off.")
        if self.how == "away":
            raise NotReady("No device of the pool is there.")
        if self.how == "hangs":
            self.free.wait(30)
        return outputs


@pytest.fixture
def lost():
    return threading.Event()


@pytest.fixture
def watched(make_client, lost):
    """A client and its engine, looked at every 0.2 s and given up after a run of 2 s."""
    engines = []

    def open_engine(bundle):
        engines.append(Failing(OnnxDevice(Settings(threads=1)).open(bundle)))
        return engines[-1]

    client = make_client(
        open_engine=open_engine, give_up=lost.set, canary_seconds=0.2, hang_seconds=2.0
    )
    yield client, engines[0]
    engines[0].free.set()


@pytest.mark.parametrize("how", ["wrong", "errs", "hangs"])
def test_a_lost_device_is_noticed_and_answers_nothing_any_more(watched, lost, good_part, how):
    client, engine = watched
    assert client.post("/v1/inspect", content=good_part, headers=JPEG).status_code == 200
    engine.how = how
    assert lost.wait(60)
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    assert "The device is lost." in ready.json()["problems"][0]
    answer = client.post("/v1/inspect", content=good_part, headers=JPEG)
    assert answer.status_code == 503
    assert answer.json()["verdict"] == "error"
    assert client.get("/health/live").status_code == 200


def test_a_device_elsewhere_that_is_away_is_waited_for(watched, lost, good_part):
    client, engine = watched
    engine.how = "away"
    answer = client.post("/v1/inspect", content=good_part, headers=JPEG)
    assert answer.status_code == 503
    assert answer.json()["verdict"] == "error"
    until(lambda: client.get("/health/ready").status_code == 503)
    assert "The device is away." in client.get("/health/ready").json()["problems"][0]
    engine.how = "not"
    until(lambda: client.get("/health/ready").status_code == 200)
    assert client.post("/v1/inspect", content=good_part, headers=JPEG).status_code == 200
    assert not lost.is_set()


def test_one_of_two_that_is_away_stays_so_while_the_other_answers(
    tmp_path, database_url, monkeypatch
):
    monkeypatch.setattr(watchdog, "_TICK_S", 0.05)
    engines = {}

    class Engine(FakeEngine):
        away, runs = False, 0

        def run(self, images):
            self.runs += 1
            if self.away:
                raise NotReady("No device of the pool is there.")
            return super().run(images)

    for recipe in ("cap", "box"):
        write_version(tmp_path / "grey", recipe=recipe)
    settings = Settings(
        store=tmp_path / "grey", data=tmp_path / "data", database=database_url, canary_seconds=0.05
    )
    app = create_app(
        settings,
        open_engine=lambda bundle: engines.setdefault(bundle.manifest.recipe, Engine()),
    )
    with TestClient(app) as client:
        engines["box"].away = True
        until(lambda: client.get("/health/ready").status_code == 503)
        seen, told = engines["cap"].runs, []

        def looked_at_ten_times():
            told.append(client.get("/health/ready").status_code)
            return engines["cap"].runs >= seen + 10

        until(looked_at_ten_times)
        assert set(told) == {503}
        engines["box"].away = False
        until(lambda: client.get("/health/ready").status_code == 200)


def test_a_failed_part_has_the_device_looked_at_at_once(make_client, lost, good_part):
    engine = []

    def open_engine(bundle):
        engine.append(Failing(OnnxDevice(Settings(threads=1)).open(bundle)))
        return engine[-1]

    client = make_client(open_engine=open_engine, give_up=lost.set, canary_seconds=1000)
    engine[0].how = "errs"
    assert client.post("/v1/inspect", content=good_part, headers=JPEG).status_code == 500
    assert lost.wait(60)


def test_a_sound_device_is_left_alone(watched, lost, good_part):
    client, _ = watched
    until = time.monotonic() + 1
    while time.monotonic() < until:
        assert client.post("/v1/inspect", content=good_part, headers=JPEG).status_code == 200
    assert not lost.is_set()


def test_an_image_that_breaks_the_model_does_not_cost_the_device(make_client, lost, good_part):
    """Golden images still score as they should."""

    class Picky(Failing):
        def run(self, images):
            if images.mean() > 250:
                raise EngineFailure("The model gave no number.")
            return super().run(images)

    client = make_client(
        open_engine=lambda bundle: Picky(OnnxDevice(Settings(threads=1)).open(bundle)),
        give_up=lost.set,
        canary_seconds=0.2,
    )
    white = encode_png(np.full((64, 64, 3), 255, np.uint8))
    answer = client.post("/v1/inspect", content=white, headers={"content-type": "image/png"})
    assert answer.status_code == 500
    assert client.post("/v1/inspect", content=good_part, headers=JPEG).status_code == 200
    assert not lost.wait(0.5)


SERVE = """
import sys, threading, time
import service.cli
from service.app import create_app
from service.onnx_engine import OnnxDevice

def hanging(settings, *, give_up):
    def open_engine(bundle):
        engine = OnnxDevice(settings).open(bundle)
        run = engine.run
        def slow(images):
            time.sleep(0 if time.monotonic() < ready + 2 else 1000)
            return run(images)
        ready = time.monotonic()
        engine.run = slow
        return engine
    return create_app(settings, open_engine=open_engine, give_up=give_up)

service.cli.create_app = hanging
service.cli.main()
"""


def test_a_process_whose_device_hangs_ends_by_itself(store, tmp_path, database_url):
    script = tmp_path / "serve.py"
    script.write_text(SERVE)
    process = subprocess.run(
        [sys.executable, script, "serve", "--store", store, "--data", tmp_path / "data",
         "--database", database_url, "--port", "0"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60,
        env={"KIZU_CANARY_SECONDS": "0.5", "KIZU_HANG_SECONDS": "1", "PATH": "/usr/bin:/bin",
             "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert process.returncode == 70, process.stdout + process.stderr
    assert "the device is given up" in process.stdout + process.stderr
