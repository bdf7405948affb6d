"""The example of a camera: what it says of frames, with a stand-in for the camera's buffers and a
real service."""

import importlib.util
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from service.client import Kizu

FILE = Path(__file__).parents[2] / "deploy" / "genicam_camera.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("genicam_camera", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def buffer(grey, *, format="Mono8", width=64, height=48, more=0):
    """As harvesters has one: `payload.components[0]` with flat `data`, sides and format."""
    channels = 3 if format == "BGR8" else 1
    data = np.full(width * height * channels + more, grey, np.uint8)
    frame = SimpleNamespace(data=data, width=width, height=height, data_format=format)
    return SimpleNamespace(payload=SimpleNamespace(components=[frame]))


def said(example, kizu, frame, key="1", **given):
    asked = {"recipe": "cap", "camera": "top", "takt_ms": 5000, **given}
    return example.verdict(kizu, frame, key=key, **asked)


@pytest.mark.parametrize(
    ("grey", "format", "verdict"),
    [(50, "Mono8", "ok"), (125, "BGR8", "review"), (200, "BayerRG8", "ng")],
)
def test_a_frame_has_the_verdict_of_its_part(example, kizu, grey, format, verdict):
    assert said(example, kizu, buffer(grey, format=format)) == verdict
    [kept] = kizu.list_inspections().items
    assert (kept.verdict, kept.camera) == (verdict, "top")
    assert (kept.width, kept.height) == (64, 48)


def test_a_frame_that_is_sent_again_is_inspected_once(example, kizu):
    for _ in range(2):
        assert said(example, kizu, buffer(50)) == "ok"
    assert len(kizu.list_inspections().items) == 1


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (None, "no whole frame"),
        (buffer(50, format="YUV422_8"), "YUV422_8"),
        (buffer(50, more=64), "bytes"),
        (SimpleNamespace(payload=SimpleNamespace(components=[])), "no image"),
        (SimpleNamespace(payload=None), "no image"),
    ],
)
def test_what_is_no_whole_image_is_ng(example, kizu, frame, why):
    answer = said(example, kizu, frame)
    assert answer.startswith("ng: ")
    assert why in answer
    assert kizu.list_inspections().items == []


def test_a_recipe_that_is_not_there_is_ng(example, kizu):
    assert said(example, kizu, buffer(50), recipe="none").startswith("ng: ")


def test_no_answer_is_ng(example):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Kizu(f"http://127.0.0.1:{port}", patience_s=0) as nobody:
        assert said(example, nobody, buffer(50)).startswith("ng: The service did not answer")
