"""Scoring labelled images, with a trained network or with the bundle that is served."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from models.image import InputSize, Mask, read_mask, resize_mask
from training.data import LabelledFile
from training.features import FeatureCache, FeatureSource
from training.metrics import PixelMetrics, image_metrics

Scored = tuple[LabelledFile, float, NDArray[np.float32]]

BATCH = 8


@dataclass(frozen=True)
class Evaluation:
    """Raw scores of `files`, and the metrics where both classes were there."""

    files: tuple[LabelledFile, ...]
    scores: NDArray[np.float32]
    metrics: dict[str, float]

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        return np.array([file.verdict == "ng" for file in self.files])


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


def evaluate(scored: Iterable[Scored], size: InputSize) -> Evaluation:
    """Gather scores, image metrics, and pixel metrics over the images whose mask is known."""
    files: list[LabelledFile] = []
    scores: list[float] = []
    pixels = PixelMetrics()
    masks = 0
    for file, score, heatmap in scored:
        files.append(file)
        scores.append(score)
        if file.verdict == "ok":
            pixels.add(heatmap, np.zeros(heatmap.shape, np.bool_))
        elif file.mask:
            pixels.add(heatmap, network_mask(file.mask, size))
            masks += 1
    values = np.array(scores, np.float32)
    anomalous = np.array([file.verdict == "ng" for file in files])
    metrics: dict[str, float] = {}
    if anomalous.any() and not anomalous.all():
        metrics |= image_metrics(values, anomalous)
        if masks:
            metrics |= pixels.result()
    return Evaluation(tuple(files), values, metrics)


@functools.lru_cache(maxsize=4096)
def _packed_mask(path: Path, size: InputSize) -> NDArray[np.uint8]:
    return np.packbits(resize_mask(read_mask(path.read_bytes()), size))


def network_mask(path: Path, size: InputSize) -> Mask:
    """A mask file at the network's size, bool (H, W)."""
    bits = np.unpackbits(_packed_mask(path, size), count=size.height * size.width)
    return bits.reshape(size.height, size.width).astype(np.bool_)


def grid_mask(path: Path, rows: int, columns: int) -> Mask:
    """A mask file on a grid, bool (rows, columns): True where any pixel of the cell is marked.

    A defect smaller than a cell still marks it.
    """
    mask = read_mask(path.read_bytes())
    marked = np.zeros((rows, columns), np.bool_)
    y, x = np.nonzero(mask)
    marked[y * rows // mask.shape[0], x * columns // mask.shape[1]] = True
    return marked
