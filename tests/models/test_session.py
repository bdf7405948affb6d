"""A session runs on the device that was asked for, or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from models.errors import DeviceError, ModelError
from models.session import DEVICES, PROVIDERS, Device, open_session, provider_of

HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), np.uint8)


@pytest.mark.parametrize("threads", [0, 1])
def test_the_cpu_runs_the_graph(scorer: bytes, threads: int) -> None:
    session = open_session(scorer, device="cpu", threads=threads)
    assert provider_of(session) == "CPUExecutionProvider"
    score, heatmap = session.run(["score", "heatmap"], {"image": IMAGES})
    assert np.allclose(heatmap, IMAGES.mean(axis=3))
    assert np.allclose(score, IMAGES.mean(axis=3).max(axis=(1, 2)))


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime offers CUDA")
def test_auto_is_the_cpu_where_there_is_no_cuda(scorer: bytes) -> None:
    assert provider_of(open_session(scorer)) == "CPUExecutionProvider"


@pytest.mark.parametrize("device", [d for d in DEVICES if d not in ("auto", "cpu")])
def test_a_device_that_is_not_there_is_an_error_and_not_the_cpu(
    scorer: bytes, device: Device
) -> None:
    if PROVIDERS[device][0][0] in ort.get_available_providers():
        pytest.skip("this ONNX Runtime offers it")
    with pytest.raises(DeviceError, match=f"'{device}' was to run") as raised:
        open_session(scorer, device=device)
    assert ("kizu[openvino]" if device == "openvino" else "kizu[gpu]") in raised.value.remedy


def test_half_precision_is_refused_where_it_would_not_be_used(scorer: bytes) -> None:
    with pytest.raises(DeviceError, match="'cpu' computes in fp32 alone"):
        open_session(scorer, device="cpu", precision="fp16")


def test_cuda_graphs_are_refused_where_there_are_none(scorer: bytes) -> None:
    with pytest.raises(DeviceError, match="'cpu' has no CUDA graphs"):
        open_session(scorer, device="cpu", recorded=True)


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime offers CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_auto_does_not_fall_back_to_the_cpu_without_a_word(
    scorer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the GPU's runtime on a machine whose driver is missing: listed, and not running."""
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: listed)
    with pytest.raises(DeviceError, match="runs on CPUExecutionProvider"):
        open_session(scorer)


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("keep", [0, 10, 100])
def test_a_broken_model_is_a_model_error(scorer: bytes, device: Device, keep: int) -> None:
    with pytest.raises(ModelError, match="does not load"):
        open_session(scorer[:keep], device=device)


@pytest.mark.parametrize("module", ["models.session", "service.cli", "training.cli.main"])
def test_nothing_is_told_to_those_who_made_the_runtime(
    scorer: bytes, module: str, tmp_path: Path
) -> None:
    """From 1.29 on it keeps an id and what it is to send, from its import on."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    said = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "TMPDIR": str(temporary)}
    given = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    script = (
        f"import {module}, sys; from models.session import open_session;"
        "open_session(sys.stdin.buffer.read(), device='cpu')"
    )
    subprocess.run(
        [sys.executable, "-c", script], input=scorer, env=given | said, check=True, timeout=120
    )
    assert list(temporary.iterdir()) == []
    assert list(home.rglob("*onnxruntime*")) == []
