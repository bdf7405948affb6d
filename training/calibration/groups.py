"""Groups of good parts that are no independent evidence: consecutive frames, shots of one part.

On both sides of a split they would tell of each other, and thresholds would be too low. Where a
folder names what belongs together (a lot, a part, a day), that is taken; else what looks the same.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from training.backbones.features import FeatureCache
from training.data.folders import LabelledFile

# Of the median distance between two parts, below which they are shots of the same one.
NEAR = 0.35
_DIRECTIONS = 256
_SEED = 20261128


def group_parts(files: Sequence[LabelledFile], cache: FeatureCache) -> NDArray[np.int64]:
    """The number of the group (N) of each file."""
    if any(file.group for file in files):
        names = [file.group or file.sha256 for file in files]
        return np.unique(names, return_inverse=True)[1].astype(np.int64)
    return near_duplicates(_descriptors(files, cache))


def near_duplicates(descriptors_ND: NDArray[np.float32]) -> NDArray[np.int64]:
    """Groups (N) of descriptors that are much nearer to each other than two parts usually are."""
    count = len(descriptors_ND)
    squares = (descriptors_ND**2).sum(1)
    parent = np.arange(count)

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = int(parent[index])
        return index

    sample = np.random.default_rng(_SEED).permutation(count)[:500]
    between = _distances(
        descriptors_ND[sample], descriptors_ND[sample], squares[sample], squares[sample]
    )
    others = between[~np.eye(len(sample), dtype=bool)]
    limit = NEAR * float(np.median(others)) if len(others) else 0.0
    for start in range(0, count, 512):
        block = slice(start, start + 512)
        away = _distances(descriptors_ND[block], descriptors_ND, squares[block], squares)
        for row, column in zip(*np.nonzero(away < limit), strict=True):
            first, second = root(start + int(row)), root(int(column))
            parent[max(first, second)] = min(first, second)
    roots = np.array([root(index) for index in range(count)])
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def _distances(
    a: NDArray[np.float32], b: NDArray[np.float32], a2: NDArray[np.float32], b2: NDArray[np.float32]
) -> NDArray[np.float32]:
    square = a2[:, None] - 2 * a @ b.T + b2[None]
    distance: NDArray[np.float32] = np.sqrt(np.maximum(square, 0))
    return distance


def _descriptors(files: Sequence[LabelledFile], cache: FeatureCache) -> NDArray[np.float32]:
    """Random projections (N, 256) of each part's features, which keep their distances."""
    generator = torch.Generator().manual_seed(_SEED)
    projection_DK = torch.randn(cache.layout.size, _DIRECTIONS, generator=generator)
    projected = [cache.batch([file.sha256]) @ projection_DK for file in files]
    return (torch.cat(projected) / _DIRECTIONS**0.5).numpy()
