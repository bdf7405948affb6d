"""A product of plain grey images, whose score is their grey value: no network has to learn that."""

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from models.appearance import appearances
from models.bundle import (
    FILES,
    GOLDEN,
    MODEL,
    REPORT,
    BackboneReference,
    Calibration,
    Effort,
    Manifest,
    Thresholds,
    write_bundle,
)
from models.golden import Golden
from models.image import InputSize, PixelContract
from service.engine import FakeEngine

PNG = {"content-type": "image/png"}
WIDTH, HEIGHT = 64, 48
PAGE = b"<!doctype html><title>a report</title><h1>A report</h1>"


def image(grey: int, format: str = "PNG", spot: tuple[int, int, int, int] | None = None) -> bytes:
    """A plain image of 64 × 48; with a white rectangle (left, top, right, bottom) on it."""
    drawn = Image.new("L", (WIDTH, HEIGHT), grey)
    if spot:
        drawn.paste(255, spot)
    buffer = io.BytesIO()
    drawn.save(buffer, format)
    return buffer.getvalue()


def image_file(name: str, grey: int) -> dict[str, Any]:
    """One for a browser's file chooser."""
    return {"name": name, "mimeType": "image/png", "buffer": image(grey)}


def inspect(api: httpx.Client, grey: int, **query: str) -> dict[str, Any]:
    """Have one inspected."""
    answer = api.post("/v1/inspect", content=image(grey), params=query, headers=PNG)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def network() -> bytes:
    """What FakeEngine does, for ONNX Runtime."""
    opset = helper.make_opsetid("", 18)
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "colours"], ["heatmap"], keepdims=0),
        helper.make_node("ReduceMean", ["heatmap", "places"], ["score"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "grey",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"]),
            helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, ["B", "H", "W"]),
        ],
        [
            helper.make_tensor("colours", TensorProto.INT64, [1], [3]),
            helper.make_tensor("places", TensorProto.INT64, [2], [1, 2]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_version(store: Path, version: int = 1, *, recipe: str = "cap", **fields: Any) -> Path:
    """A bundle that FakeEngine serves, and ONNX Runtime: good parts are darker than 100, defective
    ones from 150."""
    grey = [np.full((32, 32, 3), value, np.uint8) for value in range(40, 60)]
    manifest = Manifest(
        recipe=recipe,
        version=version,
        created_at=datetime.now(UTC),
        origin="fit",
        method="fast",
        input=InputSize(height=32, width=32),
        pixels=PixelContract(),
        calibration=Calibration(
            count=10,
            groups=10,
            review_interval=(0.0, 0.1),
            reject_interval=(0.0, 0.05),
            counted=False,
            automatic_reject=True,
            quantiles=tuple(float(value) for value in range(101)),
            false_review_rate=0.01,
            false_reject_rate=0.001,
            resolvable_false_reject=0.1,
        ),
        thresholds=Thresholds(review=100, ng=150),
        backbone=BackboneReference(name="fake", sha256="0" * 64, licence="Apache-2.0"),
        metrics={"image_auroc": 0.95},
        appearance=appearances(grey),
        effort=Effort(seconds_per_image=0.1, retrain_seconds=60, peak_mb=900),
        sha256={},
    )
    manifest = manifest.model_copy(update=fields)
    seen = np.stack(grey[:2])
    outputs = FakeEngine().run(seen)
    golden = Golden(seen, outputs.scores, outputs.heatmaps).to_bytes()
    files = dict.fromkeys(FILES, b"unused") | {GOLDEN: golden, REPORT: PAGE}
    files[MODEL] = network()
    return write_bundle(store, manifest, files)
