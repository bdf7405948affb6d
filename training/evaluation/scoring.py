"""Scoring labelled images, with a trained network or with the bundle that is served."""

import functools
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from models.image import InputSize, Mask, content_box, read_mask, resize_mask
from training.backbones.features import FeatureCache, FeatureSource
from training.data.folders import LabelledFile
from training.evaluation.metrics import Metrics, PixelCounts, image_metrics

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
Scored = tuple[LabelledFile, float, NDArray[np.float32]]

BATCH = 8


@dataclass(frozen=True)
class Evaluation:
    """Raw scores (N) of `files`, and their pixels where a mask says which are defective."""

    files: tuple[LabelledFile, ...]
    scores: NDArray[np.float32]
    pixels: PixelCounts

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """Which files are defective (N)."""
        return np.array([file.verdict == "ng" for file in self.files])

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """All metrics; none where only one class was there, no pixel metrics without a mask."""
        found = self.measure(np.ones((1, len(self.files))))
        return {name: float(value) for name, (value,) in found.items()}

    def measure(self, weights: NDArray[Any]) -> Metrics:
        """Each metric (B) with the files counted as often as each row of weights (B, N) says."""
        anomalous = self.anomalous
        if not anomalous.any() or anomalous.all():
            return {}
        return image_metrics(self.scores, anomalous, weights) | self.pixels.metrics(weights)

    def roc(self) -> Curve | None:
        """Shares (L) of good and of defective files at or above each score, falling."""
        anomalous = self.anomalous
        if not anomalous.any() or anomalous.all():
            return None
        order = np.argsort(-self.scores, kind="stable")
        return _shares(~anomalous[order]), _shares(anomalous[order])

    def precision_recall(self) -> Curve | None:
        """Recall and precision (L) of marked pixels at each level of score, falling."""
        good, marked, _ = self.pixels.totals()
        if not marked.any():
            return None
        true, false = np.cumsum(marked[::-1]), np.cumsum(good[::-1])
        return true / true[-1], true / (true + false)

    def region_overlap(self) -> Curve | None:
        """False-positive rate of pixels, and mean overlap with marked regions (L)."""
        good, _, overlap = self.pixels.totals()
        if not overlap.any() or not good.any():
            return None
        return _shares(good[::-1]), _shares(overlap[::-1])


def _shares(counts: NDArray[Any]) -> NDArray[np.float64]:
    total = np.cumsum(counts, dtype=np.float64)
    return np.concatenate([[0.0], total / total[-1]])


def score_features(
    scorer: nn.Module, cache: FeatureCache, files: Sequence[LabelledFile]
) -> Iterator[Scored]:
    """Score files whose features are cached with a network: (file, score, heatmap (h, w))."""
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        features = torch.from_numpy(np.stack([cache[file.sha256] for file in batch]))
        with torch.inference_mode():
            scores, heatmaps = scorer(features)
        yield from zip(batch, scores.tolist(), heatmaps.numpy(), strict=True)


def score_images(
    session: ort.InferenceSession, source: FeatureSource, files: Sequence[LabelledFile]
) -> Iterator[Scored]:
    """Score files as the service does, with a bundle's whole graph."""
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        images = np.stack([source.read(file.image) for file in batch])
        scores, heatmaps = session.run(["score", "heatmap"], {"image": images})
        yield from zip(batch, scores.tolist(), heatmaps, strict=True)


def evaluate(
    scored: Iterable[Scored], size: InputSize, *, without_pixels: Container[str] = ()
) -> Evaluation:
    """Gather what a ranking needs; heatmaps are counted, not kept.

    Of files whose hashes are in `without_pixels`, the score alone is taken.
    """
    files: list[LabelledFile] = []
    scores: list[float] = []
    pixels = PixelCounts()
    for file, score, heatmap in scored:
        files.append(file)
        scores.append(score)
        pixels.add(heatmap, None if file.sha256 in without_pixels else _marked(file, size))
    return Evaluation(tuple(files), np.array(scores, np.float32), pixels)


def _marked(file: LabelledFile, size: InputSize) -> Mask | None:
    """Which pixels are defective; None where nobody marked them."""
    if file.verdict == "ok":
        return np.zeros((size.height, size.width), np.bool_)
    return network_mask(file.mask, size) if file.mask else None


@functools.lru_cache(maxsize=4096)
def _packed_mask(path: Path, size: InputSize) -> NDArray[np.uint8]:
    return np.packbits(resize_mask(read_mask(path.read_bytes()), size))


def network_mask(path: Path, size: InputSize) -> Mask:
    """A mask file at the network's size, bool (H, W)."""
    bits = np.unpackbits(_packed_mask(path, size), count=size.height * size.width)
    return bits.reshape(size.height, size.width).astype(np.bool_)


def input_mask(mask: Mask, size: InputSize) -> Mask:
    """A mask (H, W) in the proportions of the network's input: with borders, where its image has
    some. What any pixel marks stays marked, however small."""
    if size.resize == "stretch":
        return mask
    box = content_box(size, width=mask.shape[1], height=mask.shape[0])
    bordered = np.zeros((size.height, size.width), np.bool_)
    bordered[box.slices] = grid_mask(mask, box.height, box.width)
    return bordered


def grid_mask(mask: Mask, rows: int, columns: int) -> Mask:
    """A mask (H, W) on a grid, bool (rows, columns): True where any pixel of the cell is marked.

    A defect smaller than a cell still marks it.
    """
    marked = np.zeros((rows, columns), np.bool_)
    y, x = np.nonzero(mask)
    marked[y * rows // mask.shape[0], x * columns // mask.shape[1]] = True
    return marked
