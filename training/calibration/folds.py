"""Folds of good parts: what is held out together, so that no fold knows its own parts."""

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
_SEED = 20261128


def split_folds(groups: NDArray[np.int64], folds: int = FOLDS) -> NDArray[np.int64]:
    """The fold (N) of each part. Parts of one group share a fold; folds are of similar size.

    `groups` (N) are numbers of groups; fewer groups than folds are one fold each. The same groups
    give the same folds.
    """
    numbers, member = np.unique(groups, return_inverse=True)
    folds = min(folds, len(numbers))
    sizes = np.bincount(member)
    order = np.random.default_rng(_SEED).permutation(len(numbers))
    order = order[np.argsort(-sizes[order], kind="stable")]  # the largest first
    filled = np.zeros(folds, np.int64)
    fold_of_group = np.empty(len(numbers), np.int64)
    for group in order:
        fold_of_group[group] = int(filled.argmin())
        filled[fold_of_group[group]] += sizes[group]
    return fold_of_group[member]
