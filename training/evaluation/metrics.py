"""Ranking metrics on raw scores; pixel metrics in bounded memory.

Scores are never clamped, and an AUROC below one half is reported as it is. Values are 0..1.

Everything is a function of how many good and anomalous ones lie at each level of score, for many
weightings of the images at once: scikit-learn, which the tests compare with, takes one at a time
and seconds for a bootstrap.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from training.errors import DatasetError

# A float32's upper 18 bits rank as the float does (for values ≥ 0) and keep 9 bits of mantissa:
# two pixels closer than 0.2 % count as equal.
_DROPPED_BITS = 14
# Per-region overlap is averaged over false-positive rates up to this (Bergmann et al., MVTec AD).
PRO_LIMIT = 0.3
_AT_ONCE = 64


Metrics = dict[str, NDArray[np.float64]]


def image_metrics(
    scores: NDArray[Any], anomalous: NDArray[np.bool_], weights: NDArray[Any]
) -> Metrics:
    """AUROC, AP and F1-max (B) of image scores (N), for each weighting of the images (B, N).

    Raises DatasetError with one class only.
    """
    if anomalous.all() or not anomalous.any():
        raise DatasetError(
            "Only one class is there; a ranking needs good and defective ones.",
            remedy="Add test images of the other class, or leave the test folder out.",
        )
    order = np.argsort(scores, kind="stable")
    first = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)
    good = np.add.reduceat((weights * ~anomalous)[:, order], first, axis=1)
    bad = np.add.reduceat((weights * anomalous)[:, order], first, axis=1)
    return {f"image_{name}": values for name, values in ranking(good, bad).items()}


def ranking(good: NDArray[Any], bad: NDArray[Any]) -> Metrics:
    """AUROC, AP and F1-max (B) of counts (B, L) per level of score, the levels ascending.

    AUROC counts a tie as half (Mann-Whitney); AP is the mean precision at each anomalous one.
    NaN where one side is empty.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        all_good, all_bad = good.sum(1), bad.sum(1)
        below = np.cumsum(good, 1) - good / 2
        auroc = (bad * below).sum(1) / (all_good * all_bad)
        true, false = (np.cumsum(counts[:, ::-1], 1)[:, ::-1] for counts in (bad, good))
        precision = true / (true + false)
        ap = np.nansum(bad * precision, 1) / all_bad
        f1 = np.max(2 * true / (true + false + all_bad[:, None]), 1, initial=0.0)
    f1 = np.where(all_bad > 0, f1, np.nan)
    return {"auroc": auroc, "ap": ap, "f1_max": f1}


def aupro(good: NDArray[Any], overlap: NDArray[Any], limit: float = PRO_LIMIT) -> NDArray[Any]:
    """Area under the per-region overlap (B), up to a false-positive rate of `limit`, over `limit`.

    `good` (B, L) counts good pixels per level, ascending; `overlap` (B, L) sums over all marked
    regions which share of the region lies at the level. NaN where either is empty.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        rate, share = (
            np.cumsum(np.pad(counts, ((0, 0), (0, 1)))[:, ::-1], 1) / counts.sum(1, keepdims=True)
            for counts in (good, overlap)
        )
        start, end = rate[:, :-1], rate[:, 1:]
        slope = np.nan_to_num((share[:, 1:] - share[:, :-1]) / (end - start), posinf=0.0)
        width = np.minimum(end, limit) - np.minimum(start, limit)
        area = (width * (share[:, :-1] + slope * width / 2)).sum(1) / limit
    return np.where(np.isnan(rate[:, -1] + share[:, -1]), np.nan, area)


class PixelCounts:
    """How many good and marked pixels of each image lie at each level of score, and which share
    of each marked region (pixels that touch, corners included)."""

    def __init__(self) -> None:
        self._images: list[_Counts] = []
        self._stacked: tuple[csr_array, csr_array, csr_array] | None = None

    def add(self, heatmap: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> None:
        """Count one image's heatmap (h, w), values ≥ 0, against its mask (h, w).

        Without a mask nothing is known of its pixels, and none counts.
        """
        self._stacked = None
        if mask is None:
            nothing = np.zeros(0)
            self._images.append(_Counts(nothing, nothing, nothing, nothing))
            return
        if heatmap.shape != mask.shape:
            raise DatasetError(f"A mask of {mask.shape} for a heatmap of {heatmap.shape}.")
        if not bool((heatmap >= 0).all()):
            raise ValueError("pixel scores must be numbers of at least 0")
        level = np.ascontiguousarray(heatmap).view(np.uint32) >> _DROPPED_BITS
        used, place = np.unique(level, return_inverse=True)
        place = place.reshape(mask.shape)
        region = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1][mask]
        share = 1 / np.bincount(region, minlength=1)[region]
        self._images.append(
            _Counts(
                used,
                np.bincount(place[~mask], minlength=len(used)),
                np.bincount(place[mask], minlength=len(used)),
                np.bincount(place[mask], share, minlength=len(used)),
            )
        )

    def metrics(self, weights: NDArray[Any]) -> Metrics:
        """AUROC, AP, F1-max (B) over all pixels and AUPRO, for each weighting of the images (B, N).

        Empty where no pixel of any image was marked, or every one; NaN where that is so of the
        images that a weighting leaves.
        """
        good, marked, overlap = self._stack()
        if not good.count_nonzero() or not marked.count_nonzero():
            return {}
        # A few at a time: counts are (weightings, levels).
        parts = [
            ranking(some @ good, some @ marked) | {"aupro": aupro(some @ good, some @ overlap)}
            for some in np.array_split(weights, -(-len(weights) // _AT_ONCE))
        ]
        return {f"pixel_{name}": np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def totals(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Good and marked pixels, and shares of regions, of all images (L), levels ascending."""
        good, marked, overlap = (counts.sum(axis=0) for counts in self._stack())
        return good, marked, overlap

    def _stack(self) -> tuple[csr_array, csr_array, csr_array]:
        self._stacked = self._stacked or _stack(self._images)
        return self._stacked


class _Counts(NamedTuple):
    levels: NDArray[Any]  # (l) ascending, as the others
    good: NDArray[Any]
    marked: NDArray[Any]
    overlap: NDArray[Any]


def _stack(images: list[_Counts]) -> tuple[csr_array, csr_array, csr_array]:
    """Good, marked and overlap as (image, level), the levels ascending."""
    if not images:
        return csr_array((0, 0)), csr_array((0, 0)), csr_array((0, 0))
    joined = _Counts(*(np.concatenate(column) for column in zip(*images, strict=True)))
    levels, column = np.unique(joined.levels, return_inverse=True)
    start = np.cumsum([0, *(len(image.levels) for image in images)])
    shape = (len(images), len(levels))
    good, marked, overlap = (
        csr_array((counts, column, start), shape=shape) for counts in joined[1:]
    )
    return good, marked, overlap
