import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from training.errors import DatasetError
from training.metrics import PixelMetrics, image_metrics


def test_image_metrics_rank_raw_scores():
    scores = np.array([-5.0, 900.0, 3.0, 4.0])
    anomalous = np.array([False, True, True, False])
    metrics = image_metrics(scores, anomalous)
    assert metrics["image_auroc"] == pytest.approx(0.75)
    assert metrics["image_f1_max"] == pytest.approx(0.8)


def test_a_wrong_ranking_is_reported_as_it_is():
    metrics = image_metrics(np.array([1.0, 0.0]), np.array([False, True]))
    assert metrics["image_auroc"] == 0


def test_one_class_is_refused():
    with pytest.raises(DatasetError, match="one class"):
        image_metrics(np.array([1.0, 2.0]), np.array([True, True]))
    pixels = PixelMetrics()
    pixels.add(np.ones((2, 2), np.float32), np.zeros((2, 2), bool))
    assert pixels.result() == {}


def test_pixel_metrics_agree_with_all_pixels_at_once():
    rng = np.random.default_rng(0)
    masks = rng.random((6, 40, 40)) < 0.05
    heatmaps = (rng.gamma(2, 2, masks.shape) + 3 * masks).astype(np.float32)
    pixels = PixelMetrics()
    for heatmap, mask in zip(heatmaps, masks, strict=True):
        pixels.add(heatmap, mask)
    result = pixels.result()
    flat = masks.ravel(), heatmaps.ravel()
    assert result["pixel_auroc"] == pytest.approx(roc_auc_score(*flat), abs=1e-4)
    assert result["pixel_ap"] == pytest.approx(average_precision_score(*flat), abs=1e-3)


def test_a_mask_of_another_size_and_no_numbers_are_refused():
    with pytest.raises(DatasetError, match="mask"):
        PixelMetrics().add(np.ones((2, 2), np.float32), np.zeros((2, 3), bool))
    with pytest.raises(ValueError, match="numbers"):
        PixelMetrics().add(np.full((2, 2), np.nan, np.float32), np.zeros((2, 2), bool))
