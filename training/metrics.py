"""Ranking metrics on raw scores, by scikit-learn; pixel metrics in bounded memory.

Scores are never clamped, and an AUROC below one half is reported as it is. Values are 0..1.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from training.errors import DatasetError

# A float32's upper 20 bits rank as the float does (for values ≥ 0) and keep 11 bits of mantissa:
# two pixels closer than 0.05 % count as equal.
_DROPPED_BITS = 12


def image_metrics(scores: NDArray[Any], anomalous: NDArray[np.bool_]) -> dict[str, float]:
    """AUROC, AP and F1-max of image scores (N). Raises DatasetError with one class only."""
    _check_both(anomalous)
    return _metrics("image", anomalous, scores, np.ones(len(scores)))


class PixelMetrics:
    """AUROC, AP and F1-max over all pixels, gathered image by image as counts per score."""

    def __init__(self) -> None:
        levels = 1 << (32 - _DROPPED_BITS - 1)
        self._good = np.zeros(levels, np.int64)
        self._marked = np.zeros(levels, np.int64)

    def add(self, heatmap: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Count one image's heatmap (h, w), values ≥ 0, against its mask (h, w)."""
        if heatmap.shape != mask.shape:
            raise DatasetError(f"A mask of {mask.shape} for a heatmap of {heatmap.shape}.")
        if not float(heatmap.min()) >= 0:
            raise ValueError("pixel scores must be numbers of at least 0")
        level = np.ascontiguousarray(heatmap).view(np.uint32) >> _DROPPED_BITS
        np.add.at(self._marked, level[mask], 1)
        np.add.at(self._good, level[~mask], 1)

    def result(self) -> dict[str, float]:
        """The metrics; none where no pixel was marked, or every one."""
        if not self._good.any() or not self._marked.any():
            return {}
        used = np.flatnonzero(self._good + self._marked)
        weights = np.concatenate([self._good[used], self._marked[used]])
        return _metrics("pixel", np.repeat([False, True], len(used)), np.tile(used, 2), weights)


def _metrics(
    prefix: str, anomalous: NDArray[np.bool_], scores: NDArray[Any], weights: NDArray[Any]
) -> dict[str, float]:
    precision, recall, _ = precision_recall_curve(anomalous, scores, sample_weight=weights)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return {
        f"{prefix}_auroc": float(roc_auc_score(anomalous, scores, sample_weight=weights)),
        f"{prefix}_ap": float(average_precision_score(anomalous, scores, sample_weight=weights)),
        f"{prefix}_f1_max": float(f1.max()),
    }


def _check_both(anomalous: NDArray[np.bool_]) -> None:
    if anomalous.all() or not anomalous.any():
        raise DatasetError(
            "Only one class is there; a ranking needs good and defective ones.",
            remedy="Add test images of the other class, or leave the test folder out.",
        )
