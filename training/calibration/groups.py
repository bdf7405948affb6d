"""Groups of good parts that are no independent evidence: consecutive frames, shots of one part.

On both sides of a split they would tell of each other, and thresholds would be too low. Where a
folder names what belongs together (a lot, a part, a day), that is taken; else what looks the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import cdist
from torch.nn import functional as F

from training.backbones.features import FeatureCache
from training.data.folders import LabelledFile
from training.errors import TrainingError

# Of the median distance between two parts, below which they are shots of the same one.
NEAR = 0.35
# Two kinds of parts are apart by so many times what else is farthest from its nearest neighbours,
# and each has a tenth of the parts at least. Two products had 2.6; of eight sets of one product
# none had more than 1.1.
_APART, _TENTH, _FEWEST = 1.7, 0.1, 3
_ROUNDING = 1e-3  # of a descriptor's length
_DIRECTIONS = 256
_REGIONS = 8  # along each side
_SEED = 20261128


@dataclass(frozen=True)
class PartGroups:
    """The number of the group (N) of each of N parts, and of the kind that it looks like: 0, or 0
    and 1 where the parts fall into two."""

    groups: NDArray[np.int64]
    kinds: NDArray[np.int64]

    @property
    def note(self) -> str:
        """What two kinds mean, in words; empty where there is one."""
        counts = np.bincount(self.kinds)
        if len(counts) < 2:
            return ""
        return (
            f"The good parts are of two kinds that look very different, {counts[0]} and "
            f"{counts[1]}: are they two products, or two cameras? Fit each as a recipe of its own: "
            "one model of both stops fewer defects of either."
        )


def group_parts(files: Sequence[LabelledFile], cache: FeatureCache) -> PartGroups:
    """The groups of some files. One folder of all says nothing of groups.

    Raises TrainingError where all are one group: nothing could be held out.
    """
    names = [file.group or file.sha256 for file in files]
    descriptors_ND = _descriptors(files, cache)
    kinds = two_kinds(descriptors_ND)
    if any(file.group for file in files) and len(set(names)) > 1:
        return PartGroups(np.unique(names, return_inverse=True)[1].astype(np.int64), kinds)
    groups = np.zeros(len(files), np.int64)
    for kind in np.unique(kinds):
        of_kind = kinds == kind
        groups[of_kind] = near_duplicates(descriptors_ND[of_kind]) + int(groups.max() + kind)
    if len(files) > 1 and not groups.any():
        raise TrainingError(
            f"All {len(files)} good parts look like shots of the same part: how good parts vary "
            "cannot be seen.",
            remedy="Give images of different parts, or name what belongs together by sub-folders "
            "of train/good.",
        )
    return PartGroups(groups, kinds)


def two_kinds(descriptors_ND: NDArray[np.float32]) -> NDArray[np.int64]:
    """The kind (N) of each part: all 0, or 0 and 1 where one gap is far wider than any other."""
    count = len(descriptors_ND)
    tree = minimum_spanning_tree(cdist(descriptors_ND, descriptors_ND)).tocsr()
    if tree.nnz < 2:
        return np.zeros(count, np.int64)
    second, widest = np.sort(tree.data)[-2:]
    tree.data[tree.data >= widest] = 0
    tree.eliminate_zeros()
    _, kinds = connected_components(tree, directed=False)
    if widest < _APART * second or np.bincount(kinds).min() < max(_FEWEST, _TENTH * count):
        return np.zeros(count, np.int64)
    return kinds.astype(np.int64)


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
    # Copies differ by rounding, however little all parts differ.
    rounding = _ROUNDING * float(np.sqrt(np.median(squares)))
    limit = max(NEAR * float(np.median(others)) if len(others) else 0.0, rounding)
    for start in range(0, count, 512):
        block = slice(start, start + 512)
        away = _distances(descriptors_ND[block], descriptors_ND, squares[block], squares)
        for row, column in zip(*np.nonzero(away <= limit), strict=True):
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
