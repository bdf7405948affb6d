"""What distances are expected of a model that has learned more good parts than those measured.

A fold's model knows fewer parts than the final one, so what it measures is larger: by 3 to 5 % with
50 drawn caps, which is nearly half of the deviation between parts. A model of half as many parts
shows how distances fall with their number, and what is still to come is extrapolated (as a learning
curve, Hestness et al. 2017; nearest neighbours: Cover & Hart 1967).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.calibration.cross_fit import LEARNED, CrossFit, measure
from training.data.folders import LabelledFile
from training.methods.registry import Method
from training.methods.train_context import TrainContext, evenly
from training.networks.positional_bank import PositionalBank
from training.networks.scorer import Scorer, ScoreSettings

# Distances fall with this power of the number of parts, towards those of endlessly many. Between
# 1/n and log n what is extrapolated from four fifths is 0.20 to 0.32 of what the halving showed;
# this is in between.
_POWER = 1 / 3
# A model of fewer parts than this says nothing of those of many.
_FEWEST = 5
# Parts that are measured, at most: their median has to be known, no more.
_MEASURED = 200


def expected_ratio(
    method: Method,
    final: Scorer,
    context: TrainContext,
    cross: CrossFit,
    folds: NDArray[np.int64],
    settings: ScoreSettings | None = None,
) -> Tensor:
    """By what the distances (P) of `cross` are multiplied to be those of the `final` model.

    `folds` (N) are of its files, all of which the final model has learned. It is 1 for what learns
    by descent, for what goes on from a champion, for banks that a fold's parts fill, and where
    parts are too few to tell. Raises TrainingError.
    """
    ratio_P = torch.ones(len(method.branches))
    chosen = [n for n, branch in enumerate(method.branches) if branch.remembers]
    learned, held = _halved(cross.files, folds)
    if not chosen or context.start or len(learned) < _FEWEST:
        return ratio_P
    part = method.only(chosen)
    scorer, _ = part.learn(context.only(learned), settings)
    by_fold = cross.only(chosen).of(held)
    by_half = CrossFit(by_fold.files, measure(scorer, context, by_fold.files), by_fold.transforms)
    fell_PN = (
        by_half.branch_scores(scorer.score, context.roi).log()
        - by_fold.branch_scores(scorer.score, context.roi).log()
    )
    counts = (len(learned), _learned_by_fold(folds), len(folds))
    copies = len(context.learned) / len(context.files)
    to_come_P = torch.tensor(
        [_still_to_come(counts, _most_parts(final.branches[n], copies)) for n in chosen]
    )
    ratio_P[chosen] = torch.exp(-to_come_P * fell_PN.median(1).values.clamp_min(0))
    return ratio_P


def _halved(
    files: Sequence[LabelledFile], folds: NDArray[np.int64]
) -> tuple[tuple[LabelledFile, ...], tuple[LabelledFile, ...]]:
    """Half as many parts as a fold's model learned, and those of other folds."""
    numbers = np.unique(folds)
    among = np.isin(folds, numbers[: max(1, len(numbers) // 2)])
    half = round(_learned_by_fold(folds) / 2)
    learned = [file for file, inside in zip(files, among, strict=True) if inside]
    held = [file for file, inside in zip(files, among, strict=True) if not inside]
    return tuple(evenly(learned, half)), tuple(evenly(held, _MEASURED))


def _learned_by_fold(folds: NDArray[np.int64]) -> float:
    """How many parts the models that measured learned, in the mean over what they measured."""
    sizes = np.unique(folds, return_counts=True)[1]
    learned = np.minimum(len(folds) - sizes, LEARNED)
    return float((sizes * learned).sum() / len(folds))


def _most_parts(branch: nn.Module, copies: float) -> float:
    """Of how many parts, each learned in so many `copies`, a branch can know all vectors."""
    return branch.config.size / copies if isinstance(branch, PositionalBank) else math.inf


def _still_to_come(counts: tuple[float, float, float], most: float) -> float:
    """How much of the fall from half of a fold's parts to these follows up to all parts, where no
    more than `most` are known; no more than the halving showed."""
    at_half, at_fold, at_all = (math.pow(min(count, most), -_POWER) for count in counts)
    return min((at_fold - at_all) / (at_half - at_fold), 1.0) if at_half > at_fold else 0.0
