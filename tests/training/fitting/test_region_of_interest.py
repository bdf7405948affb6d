"""Only what lies in the region of interest decides: thresholds, scores and heatmaps."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from models.bundle import CHECKPOINT, MODEL, open_bundle
from models.session import open_session
from training.directories import Directories
from training.engine.checkpoint import load_checkpoint
from training.errors import DatasetError, TrainingError
from training.finetuning.retrain import champion_source
from training.fitting.fit import fit
from training.fitting.settings import FitSettings

LEFT = FitSettings("cap", preset="gaussian", size=96, grid=12)


@pytest.fixture
def left_half(tmp_path):
    mask = np.zeros((96, 96), np.uint8)
    mask[:, :48] = 255
    path = tmp_path / "roi.png"
    Image.fromarray(mask).save(path)
    return path


def test_a_defect_outside_of_the_region_changes_nothing(dataset, backbone, tmp_path, left_half):
    settings = dataclasses.replace(LEFT, roi=left_half)
    fitted = fit(dataset, backbone, settings, Directories(tmp_path / "store", tmp_path / "cache"))
    bundle = open_bundle(fitted.path)
    assert bundle.manifest.inspected == 0.5
    assert load_checkpoint(bundle.read(CHECKPOINT)).roi_HW.mean() == 0.5
    part = champion_source(bundle).read(dataset.train[0].image)
    left, right = part.copy(), part.copy()
    left[40:56, 8:16] = 255 - left[40:56, 8:16]
    right[40:56, 84:92] = 255 - right[40:56, 84:92]
    session = open_session(bundle.read(MODEL))
    scores, heatmaps = session.run(["score", "heatmap"], {"image": np.stack([part, left, right])})
    assert scores[1] > scores[0] * 1.5
    assert scores[2] == pytest.approx(scores[0], rel=0.1)
    assert heatmaps[:, :, 80:].max() == 0


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((48, 96), 255, np.uint8), "96×48 pixels, the parts' images are 96×96"),
        (np.zeros((96, 96), np.uint8), "leaves nothing to inspect"),
        (None, "cannot be read"),
    ],
)
def test_a_mask_that_cannot_be_used_is_named(dataset, backbone, tmp_path, mask, message):
    path = tmp_path / "roi.png"
    if mask is not None:
        Image.fromarray(mask).save(path)
    settings = dataclasses.replace(LEFT, roi=path)
    with pytest.raises(DatasetError, match=message):
        fit(dataset, backbone, settings, Directories(tmp_path / "store", tmp_path / "cache"))


@pytest.mark.parametrize("preset", ["image-knn", "pooled-gaussian", "rotation"])
def test_what_sees_whole_images_takes_no_region(dataset, backbone, tmp_path, left_half, preset):
    settings = FitSettings("cap", preset=preset, size=64, roi=left_half)
    with pytest.raises(TrainingError, match="compares whole images"):
        fit(dataset, backbone, settings, Directories(tmp_path / "store", tmp_path / "cache"))
