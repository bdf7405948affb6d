"""A recipe whose images get borders: what is found lies where it does in the camera's image."""

import io

import numpy as np
import pytest
from PIL import Image

from models.backbone import Backbone
from models.bundle import open_bundle
from training.data.folders import Dataset
from training.directories import Directories
from training.fitting.fit import Fitted, fit
from training.fitting.settings import FitSettings


@pytest.fixture(scope="module")
def letterboxed(
    dataset: Dataset, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> Fitted:
    """Square images in an input that is twice as wide as high."""
    places = tmp_path_factory.mktemp("letterboxed")
    settings = FitSettings("cap", size=(192, 96), resize="letterbox")
    return fit(dataset, backbone, settings, Directories(places / "store", places / "cache"))


def test_a_region_lies_where_the_defect_does(letterboxed, dataset, make_client):
    assert open_bundle(letterboxed.path).manifest.input.resize == "letterbox"
    client = make_client(store=letterboxed.path.parent.parent)
    (good, *_) = [file for file in dataset.test if file.verdict == "ok"]
    pixels = np.asarray(Image.open(good.image).convert("RGB")).copy()
    pixels[20:36, 60:76] = (230, 40, 40)
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "PNG")
    answer = client.post(
        "/v1/inspect?recipe=cap", content=body.getvalue(), headers={"Content-Type": "image/png"}
    ).json()
    assert answer["verdict"] != "ok"
    (region, *_) = answer["regions"]
    box = region["box"]
    assert abs(box["x"] + box["width"] / 2 - 68) < 12
    assert abs(box["y"] + box["height"] / 2 - 28) < 12
    shown = client.get(f"/v1/inspections/{answer['id']}/heatmap?format=npy")
    heatmap = np.load(io.BytesIO(shown.content))
    assert heatmap.shape == (96, 96)
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    assert np.hypot(x - 68, y - 28) < 12
