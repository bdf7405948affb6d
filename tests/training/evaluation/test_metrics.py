import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from training.errors import DatasetError
from training.evaluation.metrics import PixelCounts, image_metrics


def once(count):
    return np.ones((1, count))


def test_image_metrics_rank_raw_scores():
    scores = np.array([-5.0, 900.0, 3.0, 4.0])
    anomalous = np.array([False, True, True, False])
    metrics = image_metrics(scores, anomalous, once(4))
    assert metrics["image_auroc"] == pytest.approx(0.75)
    assert metrics["image_f1_max"] == pytest.approx(0.8)


@pytest.mark.parametrize("seed", range(5))
def test_image_metrics_are_those_of_scikit_learn_ties_and_weights_included(seed):
    rng = np.random.default_rng(seed)
    anomalous = rng.random(60) < 0.3
    scores = rng.integers(0, 12, 60) + 2.0 * anomalous
    weights = rng.integers(0, 4, (3, 60))
    metrics = image_metrics(scores, anomalous, weights)
    for row, weight in enumerate(weights):
        auroc = roc_auc_score(anomalous, scores, sample_weight=weight)
        ap = average_precision_score(anomalous, scores, sample_weight=weight)
        precision, recall, _ = precision_recall_curve(anomalous, scores, sample_weight=weight)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        assert metrics["image_auroc"][row] == pytest.approx(auroc, abs=1e-12)
        assert metrics["image_ap"][row] == pytest.approx(ap, abs=1e-12)
        assert metrics["image_f1_max"][row] == pytest.approx(f1.max(), abs=1e-12)


def test_a_wrong_ranking_is_reported_as_it_is():
    metrics = image_metrics(np.array([1.0, 0.0]), np.array([False, True]), once(2))
    assert metrics["image_auroc"] == 0


def test_one_class_is_refused():
    with pytest.raises(DatasetError, match="one class"):
        image_metrics(np.array([1.0, 2.0]), np.array([True, True]), once(2))
    pixels = PixelCounts()
    pixels.add(np.ones((2, 2), np.float32), np.zeros((2, 2), bool))
    assert pixels.metrics(once(1)) == {}


def test_pixel_metrics_agree_with_all_pixels_at_once():
    rng = np.random.default_rng(0)
    masks = rng.random((6, 40, 40)) < 0.05
    heatmaps = (rng.gamma(2, 2, masks.shape) + 3 * masks).astype(np.float32)
    pixels = PixelCounts()
    for heatmap, mask in zip(heatmaps, masks, strict=True):
        pixels.add(heatmap, mask)
    result = pixels.metrics(once(6))
    flat = masks.ravel(), heatmaps.ravel()
    assert result["pixel_auroc"] == pytest.approx(roc_auc_score(*flat), abs=1e-4)
    assert result["pixel_ap"] == pytest.approx(average_precision_score(*flat), abs=1e-3)


def test_a_mask_of_another_size_and_no_numbers_are_refused():
    with pytest.raises(DatasetError, match="mask"):
        PixelCounts().add(np.ones((2, 2), np.float32), np.zeros((2, 3), bool))
    with pytest.raises(ValueError, match="numbers"):
        PixelCounts().add(np.full((2, 2), np.nan, np.float32), np.zeros((2, 2), bool))


def test_a_weight_counts_an_image_as_often_as_it_says():
    rng = np.random.default_rng(0)
    masks = rng.random((4, 20, 20)) < 0.1
    heatmaps = (rng.gamma(2, 2, masks.shape) + 2 * masks).astype(np.float32)
    weighed, repeated = PixelCounts(), PixelCounts()
    weights = np.array([2, 0, 1, 3])
    for heatmap, mask, weight in zip(heatmaps, masks, weights, strict=True):
        weighed.add(heatmap, mask)
        for _ in range(weight):
            repeated.add(heatmap, mask)
    found = weighed.metrics(np.stack([np.ones(4), weights]))
    for name, values in repeated.metrics(once(6)).items():
        assert found[name][1] == pytest.approx(values[0])


def test_an_image_without_a_mask_counts_no_pixel():
    pixels, alone = PixelCounts(), PixelCounts()
    rng = np.random.default_rng(1)
    heatmap, mask = rng.random((9, 9), np.float32), rng.random((9, 9)) < 0.2
    pixels.add(heatmap, mask)
    alone.add(heatmap, mask)
    pixels.add(heatmap + 5, None)
    assert pixels.metrics(once(2)) == alone.metrics(once(1))
    assert np.isnan(pixels.metrics(np.array([[0, 1]]))["pixel_ap"]).all()


def slow_aupro(heatmaps, masks, limit=0.3):
    """As it is defined: a threshold at a time, a region at a time."""
    curve = [(0.0, 0.0)]
    regions = []
    for heatmap, mask in zip(heatmaps, masks, strict=True):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [heatmap[labels == i] for i in range(1, count + 1)]
    good = heatmaps[~masks]
    for threshold in np.unique(heatmaps)[::-1]:
        overlap = np.mean([(region >= threshold).mean() for region in regions])
        curve.append(((good >= threshold).mean(), overlap))
    rate, overlap = np.array(curve).T
    inside = rate < limit
    rate = np.append(rate[inside], limit)
    overlap = np.append(overlap[inside], np.interp(limit, *np.array(curve).T))
    return np.trapezoid(overlap, rate) / limit


@pytest.mark.parametrize("seed", range(4))
def test_aupro_is_that_of_its_definition(seed):
    rng = np.random.default_rng(seed)
    masks = ndimage.gaussian_filter(rng.standard_normal((5, 30, 30)), (0, 2, 2)) > 0.25
    masks[0] = False
    heatmaps = rng.gamma(2, 2, masks.shape) + seed * masks
    # Whole halves survive the rounding to levels, and make ties.
    heatmaps = (np.round(2 * heatmaps) / 2).astype(np.float32)
    pixels = PixelCounts()
    for heatmap, mask in zip(heatmaps, masks, strict=True):
        pixels.add(heatmap, mask)
    aupro = pixels.metrics(once(5))["pixel_aupro"][0]
    assert aupro == pytest.approx(slow_aupro(heatmaps, masks), abs=1e-9)


def test_a_small_region_weighs_as_much_as_a_large_one():
    mask = np.zeros((40, 40), bool)
    mask[:20, :20] = mask[30, 30] = True
    heatmap = np.zeros((40, 40), np.float32)
    heatmap[:20, :20] = 1
    pixels = PixelCounts()
    pixels.add(heatmap, mask)
    # One of two regions is found at once; the other only with everything else.
    found = pixels.metrics(once(1))["pixel_aupro"][0]
    assert found == pytest.approx(0.5 + 0.5 * 0.3 / 2)
