"""The whole way, with a real bundle and a real worker: labels, retraining, shadow, promotion."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest
from playwright.sync_api import expect

from service.app import create_app
from service.settings import Settings
from tests.console.conftest import open_page
from tests.console.test_decisions import give_reason, go
from tests.listening import listening

KIZU = Path(sys.executable).parent / "kizu"
JPEG = {"content-type": "image/jpeg"}


@pytest.fixture
def places(tmp_path, fitted, product):
    """A store with the fitted bundle, and the good parts that it was fitted on."""
    shutil.copytree(fitted.path, tmp_path / "store" / "cap" / "1", dirs_exist_ok=False)
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "cap").symlink_to(product)
    return {
        "store": tmp_path / "store",
        "data": tmp_path / "data",
        "good_parts": tmp_path / "good",
        "cache": tmp_path / "cache",
    }


@pytest.fixture
def store(places):
    return places["store"]


@pytest.fixture
def api(places):
    app = create_app(Settings(**places, scan_seconds=0.1))
    with (
        listening(app) as (host, port),
        httpx.Client(base_url=f"http://{host}:{port}", timeout=60) as client,
    ):
        yield client
        app.state.live.close()


@pytest.fixture
def worker(places):
    environment = os.environ | {f"KIZU_{name.upper()}": str(path) for name, path in places.items()}
    process = subprocess.Popen([KIZU, "worker"], env=environment, stderr=subprocess.DEVNULL)
    yield process
    process.terminate()
    process.wait(30)


def test_labels_become_what_decides(context, api, dataset, worker, complaints_of):
    truth = {}
    for file in dataset.test:
        answer = api.post(
            "/v1/inspect?recipe=cap", content=file.image.read_bytes(), headers=JPEG
        ).json()
        truth[answer["id"]] = file
    page = open_page(context, api)
    said = complaints_of(page)

    for id, file in truth.items():  # passed parts are not all in the queue: label what is open
        label = {"inspection_id": id, "verdict": file.verdict, "operator": "Aya"}
        if file.defect_class:
            label["defect_class"] = file.defect_class
        api.post("/v1/feedback", json=label).raise_for_status()

    go(page, "training")
    estimate = page.locator(".estimate")
    expect(estimate).to_contain_text("ng (scratch)")
    expect(estimate).to_contain_text("foreseen when the model was fitted")
    expect(estimate).not_to_contain_text("No worker is running")
    page.get_by_role("button", name="Learn from these").click()
    give_reason(page, "dents are missed", "Learn from these")
    training = page.locator(".training.panel")
    expect(training.locator("progress")).to_be_visible(timeout=60_000)
    expect(training.locator(".role")).to_have_text("succeeded", timeout=240_000)
    expect(training).to_contain_text("models that did not learn it")
    training.get_by_role("link", name="Compare it").click()

    expect(page.locator(".bundle.candidate")).to_contain_text("retrained from version 1")
    good = next(file for file in dataset.test if file.verdict == "ok").image.read_bytes()
    api.post("/v1/inspect?recipe=cap", content=good, headers=JPEG).raise_for_status()
    expect(page.locator(".shadow")).to_contain_text("of 1 parts: the same verdict")
    page.locator(".bundle.candidate").get_by_role("button", name="Let it decide").click()
    give_reason(page, "it learned the dents", "Let version 2 decide")
    expect(page.locator(".bundle.champion h2")).to_have_text("version 2")
    answer = api.post("/v1/inspect?recipe=cap", content=good, headers=JPEG).json()
    assert answer["bundle_version"] == 2
    assert said == []
