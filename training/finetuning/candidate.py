"""What a champion becomes by learning labels, and how it compares with the champion."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import Mirror
from models.image import InputSize
from training.backbones.features import FeatureCache
from training.calibration.cross_fit import CrossFit, cross_fit
from training.calibration.folds import split_folds
from training.calibration.groups import group_parts
from training.calibration.learning_curve import expected_ratio
from training.calibration.thresholds import LEAST
from training.data.drawn_defects import DRAWINGS, drawn_on
from training.data.folders import LabelledFile
from training.engine.distributed import Worker
from training.engine.training_states import TrainingStates
from training.errors import TrainingError
from training.evaluation.comparison import Comparison, compare
from training.evaluation.scoring import evaluate, score_features
from training.evaluation.sensitivity import Spots
from training.finetuning.early_stopping import Validated, validate_steps
from training.fitting.drawn_anomalies import draw_anomalies, spots_by_fold
from training.fitting.symmetry import add_mirrored, few_parts
from training.methods.fusion import discriminators, fit_fusion, keep_reliability, weigh_learned
from training.methods.registry import Method
from training.methods.train_context import PushPull, TrainContext, evenly
from training.networks.scorer import Scorer
from training.progress import Reporter

# Good parts that calibrate and are compared on, at most.
CALIBRATED = 2000
# What logits of known defects are divided by to count as deviations, of which their peaks have few:
# on magnetic tiles it has the best pixel AP on labels that were not learned.
_LOGITS = 0.5
# Fewer labelled defects cannot be learned and compared on; so many drawn ones stand in for them.
LEAST_DEFECTIVE, DRAWN = 2, 60


@dataclass(frozen=True)
class Learning(PushPull):
    """How labels are learned. What knows the labelled defects has the weight `share` of all other
    branches together. `network_steps` is another length of the training of networks on good parts.
    """

    share: float = 0.25
    seed: int = 0
    network_steps: int | None = None


@dataclass(frozen=True)
class Labels:
    """What is learned. `good` are the parts that a recipe was fitted on, where they are at hand,
    and those that people called ok; `representative` are the hashes of good parts that were not
    chosen by their score, and so may set thresholds; `another_day` those that show what the fit's
    parts do not, which count as much as all others together."""

    good: tuple[LabelledFile, ...]
    defective: tuple[LabelledFile, ...]
    representative: frozenset[str]
    another_day: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Candidate:
    """A scorer that has learned labels, and how it did against the champion.

    `good` and `defective` hold the distances of all labels by scorers that did not learn them;
    where too few defects are labelled, `defective` are drawn ones besides. `spots` were drawn on
    some good parts, and have `spot_scores` by scorers that did not learn the part. `curve` is the
    loss of every step, `validated` says why there were so many, `seconds` what the learning took.
    """

    scorer: Scorer
    method: Method
    comparison: Comparison
    good: CrossFit
    defective: CrossFit
    spots: Spots
    spot_scores: NDArray[np.float32]
    learned: tuple[LabelledFile, ...]
    groups: int
    curve: list[float]
    seconds: float
    validated: Validated | None = None

    def fair(self, representative: frozenset[str]) -> NDArray[np.bool_]:
        """Which of the good parts set thresholds: those with these hashes, which were not chosen by
        their score; all where they are too few, since a biased choice says more than that."""
        fair = np.array([file.sha256 in representative for file in self.good.files])
        return fair if fair.sum() >= LEAST else np.ones(len(fair), np.bool_)

    @property
    def scores(self) -> dict[str, float | None]:
        """What was learned, by hash, with its score by scorers that did not learn it; None for
        parts beyond those that calibrate."""
        files = [*self.good.files, *self.defective.files]
        values = [*self.good.fused(self.scorer), *self.defective.fused(self.scorer)]
        scores = {file.sha256: float(value) for file, value in zip(files, values, strict=True)}
        return {file.sha256: scores.get(file.sha256) for file in self.learned}


def train_candidate(
    champion: Scorer,
    learned: Mapping[str, float | None],
    method: Method,
    cache: FeatureCache,
    labels: Labels,
    learning: Learning,
    reporter: Reporter,
    worker: Worker,
    drawings: Path,
    mirrors: tuple[Mirror, ...] = (),
    states: TrainingStates | None = None,
) -> Candidate:
    """Learn the good parts anew and the labelled defects besides, and compare with the champion.

    `method` is the champion's. `learned` names what the champion has learned, by hash, with the
    score that models gave it which did not learn it, where there is one. Where most of its good
    parts are not at hand, the champion's statistics are kept and its memory grows. Where fewer than
    two defects are labelled, none is learned, and the two are compared on defects drawn on good
    parts, kept in `drawings`. Good parts are learned in `mirrors`, too; `states` keep what networks
    have learned. Of several processes only the first returns. Raises TrainingError.
    """
    started = time.monotonic()
    at_hand = {file.sha256 for file in labels.good}
    champion_good = set(learned) - {file.sha256 for file in labels.defective}
    grows = len(champion_good - at_hand) > len(champion_good) / 2
    if grows:  # its memory holds the others already: no fold could be measured without them
        unknown = tuple(file for file in labels.good if file.sha256 not in learned)
        labels = replace(labels, good=unknown)
    _check(labels)
    known = labels.defective if len(labels.defective) >= LEAST_DEFECTIVE else ()
    context = TrainContext(
        labels.good, cache, learning.seed, known, learning,
        champion if grows else None, steps=learning.network_steps, roi=champion.roi_HW,
        mirrors=mirrors, another_day=labels.another_day, reporter=reporter, worker=worker,
        states=states,
    )  # fmt: skip
    if mirrors:
        few = few_parts(labels.good, labels.another_day)
        add_mirrored(cache, few, mirrors, reporter, worker)
        context = replace(context, mirrored=frozenset(file.sha256 for file in few))
    whole = method.with_defects() if known else method
    good = tuple(evenly(labels.good, CALIBRATED))
    groups = group_parts(good, cache).groups
    folds = split_folds(groups)
    defective, defective_folds = labels.defective, _stratified(labels.defective, folds)
    validated = validate_steps(
        whole, context, (good, folds), (defective, defective_folds), champion.score.settings
    )
    if validated:
        reporter.say(str(validated))
        context = replace(context, push_pull=replace(learning, steps=validated.steps))
    scorer, curve = whole.learn(context, champion.score.settings)
    if not known:
        drawn, drawn_folds = _draw(good, folds, context, drawings)
        defective = (*defective, *drawn)
        defective_folds = np.concatenate([defective_folds, drawn_folds])
    spots, spot_folds = spots_by_fold(good, folds, context)
    good_fit, bad_fit = cross_fit(
        whole, context, good, folds, champion.score.settings, defective=(*defective, *spots.files),
        defective_folds=np.concatenate([defective_folds, spot_folds]),
    )  # fmt: skip
    worker.leave_to_the_first()
    ratio_P = expected_ratio(whole, scorer, context, good_fit, folds, champion.score.settings)
    good_fit, bad_fit = good_fit.scaled(ratio_P), bad_fit.scaled(ratio_P)
    bad_fit, spot_fit = bad_fit.of(defective), bad_fit.of(spots.files)
    fit_fusion(scorer, good_fit.branch_scores(scorer.score, scorer.roi_HW))
    keep_reliability(champion, scorer)
    _weigh_defects(scorer, good_fit, bad_fit, learning.share, cache.source.size)
    comparison = _compared(champion, learned, scorer, (good_fit, bad_fit), cache)
    return Candidate(
        scorer, whole, replace(comparison, drawn=not known), good_fit, bad_fit,
        spots, spot_fit.fused(scorer), (*labels.good, *known), len(np.unique(groups)), curve,
        time.monotonic() - started, validated,
    )  # fmt: skip


def _draw(
    good: Sequence[LabelledFile], folds: NDArray[np.int64], context: TrainContext, drawings: Path
) -> tuple[tuple[LabelledFile, ...], NDArray[np.int64]]:
    """Defects drawn on good parts, without their masks, and the fold of each one's part."""
    drawn = draw_anomalies(
        good, context.cache, tuple(DRAWINGS), DRAWN, drawings, seed=context.seed,
        reporter=context.reporter,
    )  # fmt: skip
    unmarked = tuple(replace(file, mask=None) for file in drawn)
    return unmarked, folds[drawn_on(len(good), DRAWN, context.seed)]


def _weigh_defects(
    scorer: Scorer, good: CrossFit, defective: CrossFit, share: float, size: InputSize
) -> None:
    """Let what knows defects count by its `share`, in place, in the unit by which defects that it
    did not learn are found best, or not at all where they are found best without it: from too few
    labels it learns nothing but noise."""
    known = discriminators(scorer)
    if not bool(known.any()):
        return
    scale_P = scorer.fusion.scale_P
    by_deviation_P = scale_P.clone()
    by_logit_P = torch.where(known, _LOGITS, by_deviation_P)
    choices = [(share, by_logit_P), (share, by_deviation_P), (0.0, by_deviation_P)]

    def weigh(choice: tuple[float, Tensor]) -> None:
        counts, unit_P = choice
        scale_P.copy_(unit_P)
        weigh_learned(scorer, counts)

    def found(choice: tuple[float, Tensor]) -> float:
        """Image AUROC, and pixel AP where masks say where defects are."""
        weigh(choice)
        scored = itertools.chain(good.scored(scorer), defective.scored(scorer))
        metrics = evaluate(scored, size).metrics
        return metrics["image_auroc"] + metrics.get("pixel_ap", 0.0)

    weigh(max(choices, key=found))


def _compared(
    champion: Scorer,
    learned: Mapping[str, float | None],
    candidate: Scorer,
    by_others: tuple[CrossFit, CrossFit],
    cache: FeatureCache,
) -> Comparison:
    """On every label of which both have a fair score: the champion where it did not learn it, or
    models that did not learn it; the candidate by models that did not learn it.

    Of what the champion learned no fair heatmap is at hand: there pixels are not compared.
    """
    unfair = {name for name, score in learned.items() if score is None}
    fair = {name: score for name, score in learned.items() if score is not None}
    files = [f for each in by_others for f in each.files if f.sha256 not in unfair]
    before = (
        (file, fair.get(file.sha256, score), heatmap)
        for file, score, heatmap in score_features(champion, cache, files)
    )
    after = (
        (file, score, heatmap)
        for each in by_others
        for file, score, heatmap in each.scored(candidate)
        if file.sha256 not in unfair
    )
    size = cache.source.size
    return compare(
        evaluate(before, size, without_pixels=learned),
        evaluate(after, size, without_pixels=learned),
    )


def _stratified(files: Sequence[LabelledFile], good_folds: NDArray[np.int64]) -> NDArray[np.int64]:
    """A fold for each defect: of each class as many in every fold, by content hash."""
    count = int(good_folds.max()) + 1
    order = sorted(range(len(files)), key=lambda i: (files[i].defect_class or "", files[i].sha256))
    folds = np.empty(len(files), np.int64)
    folds[order] = np.arange(len(files)) % count
    return folds


def _check(labels: Labels) -> None:
    if len(labels.good) < LEAST:
        raise TrainingError(
            f"There are {len(labels.good)} good parts that can be held out, and {LEAST} are needed "
            "to learn some and to compare on others.",
            remedy="Label more parts, and name the good parts that the champion was fitted on "
            "with --data.",
        )
