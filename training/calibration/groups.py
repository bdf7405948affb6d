"""Groups of good parts that are no independent evidence: consecutive frames, shots of one part.

On both sides of a split they would tell of each other, and thresholds would be too low. Where a
folder names what belongs together (a lot, a part, a day), that is taken; else what looks the same.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from training.backbones.features import FeatureCache
from training.data.folders import LabelledFile
from training.errors import TrainingError

# Of the median distance between two parts, below which they are shots of the same one.
NEAR = 0.35
_DIRECTIONS = 256
_REGIONS = 8  # along each side
_SEED = 20261128


def group_parts(files: Sequence[LabelledFile], cache: FeatureCache) -> NDArray[np.int64]:
    """The number of the group (N) of each file. One folder of all says nothing of groups.

    Raises TrainingError where all are one group: nothing could be held out.
    """
    names = [file.group or file.sha256 for file in files]
    if any(file.group for file in files) and len(set(names)) > 1:
        return np.unique(names, return_inverse=True)[1].astype(np.int64)
    groups = near_duplicates(_descriptors(files, cache))
    if len(files) > 1 and not groups.any():
        raise TrainingError(
            f"All {len(files)} good parts look like shots of the same part: how good parts vary "
            "cannot be seen.",
            remedy="Give images of different parts, or name what belongs together by sub-folders "
            "of train/good.",
        )
    return groups


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
    """Random projections (N, 256) of each part's coarsest features, which keep their distances.

    Means over a few regions stand for the features: a projection of all would take gigabytes.
    """
    coarsest = len(cache.layout.shapes) - 1
    channels, height, width = cache.layout.shapes[coarsest]
    regions = (min(height, _REGIONS), min(width, _REGIONS))
    generator = torch.Generator().manual_seed(_SEED)
    size = channels * regions[0] * regions[1]
    projection_DK = torch.randn(size, _DIRECTIONS, generator=generator)
    projected = [
        F.adaptive_avg_pool2d(cache.maps([file.sha256], coarsest), regions).flatten(1)
        @ projection_DK
        for file in files
    ]
    descriptors: NDArray[np.float32] = (torch.cat(projected) / _DIRECTIONS**0.5).numpy()
    return descriptors
