"""From a folder of good parts to a scorer that has been tried: all of a fit but the bundle."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.backbone import Backbone
from models.bundle import Mirror, Suspect
from training.backbones.features import FeatureCache
from training.calibration.cross_fit import CrossFit, cross_fit
from training.calibration.folds import split_folds
from training.calibration.groups import group_parts
from training.calibration.learning_curve import expected_ratio
from training.calibration.shift import compare
from training.calibration.suspects import find_suspects
from training.calibration.thresholds import LEAST
from training.data.drawn_defects import DRAWINGS, drawn_on, external_anomalies
from training.data.folders import Dataset, LabelledFile, check_masks
from training.directories import Directories
from training.engine.distributed import Worker
from training.engine.training_states import TrainingStates
from training.errors import TrainingError
from training.evaluation.metrics import PixelCounts
from training.evaluation.scoring import Evaluation, evaluate, score_features
from training.evaluation.sensitivity import Spots
from training.fitting.drawn_anomalies import draw_anomalies, spots_by_fold
from training.fitting.inputs import feature_source, find_alignment
from training.fitting.region_of_interest import RegionOfInterest, read_region
from training.fitting.settings import FitSettings
from training.fitting.symmetry import find_mirrors
from training.methods.fusion import choose_branches, fit_fusion, weigh_learned
from training.methods.registry import method
from training.methods.train_context import TrainContext, evenly
from training.networks.scorer import Scorer
from training.progress import Reporter

# Anomalies drawn to learn from, whose features are computed once.
ANOMALIES = 600
# Those to choose branches by: for each good part, at least, and at most. More tell no more than the
# good parts that they are compared with.
DRAWN_FOR_EACH, LEAST_DRAWN, MOST_DRAWN = 2, 40, 120
# Good parts that calibrate, at most: 999 resolve a false-reject rate of 0.1 %.
CALIBRATED = 2000


@dataclass(frozen=True)
class Trained:
    """What a training leaves. `learned` are the good parts, all of which the scorer knows;
    `scores` (N) are those of `calibrated`, by models that did not learn them, in `groups`
    independent groups; `cross` has their distances, and `drawn` (M) are scores of defects drawn on
    them, where there were any; `spots` were drawn on some, and have `spot_scores` by models that
    did not learn the part. `branches` names the scorer's branches, `choices` say what was
    chosen by the parts, and why, `mirrors` in which mirrors they were learned."""

    scorer: Scorer
    cache: FeatureCache
    learned: tuple[LabelledFile, ...]
    calibrated: tuple[LabelledFile, ...]
    scores: NDArray[np.float32]
    groups: int
    suspects: tuple[Suspect, ...]
    branches: tuple[str, ...]
    cross: CrossFit
    curve: list[float]
    test: Evaluation | None
    drawn: NDArray[np.float32] | None
    spots: Spots
    spot_scores: NDArray[np.float32]
    feature_seconds: float
    learning_seconds: float
    choices: tuple[str, ...] = ()
    mirrors: tuple[Mirror, ...] = ()

    @property
    def good(self) -> Evaluation:
        """The calibrated parts, by models that did not learn them; without pixels."""
        return Evaluation(self.calibrated, self.scores, PixelCounts())

    @property
    def scored_by_others(self) -> dict[str, float | None]:
        """By hash, the score of each learned part by models that did not learn it, where it
        calibrated."""
        scores = {
            file.sha256: float(score)
            for file, score in zip(self.calibrated, self.scores, strict=True)
        }
        return {file.sha256: scores.get(file.sha256) for file in self.learned}


def train_recipe(
    data: Dataset,
    backbone: Backbone,
    settings: FitSettings,
    directories: Directories,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
    worker: Worker | None = None,
) -> Trained:
    """Learn all good parts, and score each by models that did not learn it.

    Test images are reported on and decide nothing. Of several processes, only the first returns.
    Raises DatasetError or TrainingError.
    """
    reporter, worker = reporter or Reporter(), worker or Worker()
    chosen = method(settings.preset)
    check_settings(data, settings)
    source = feature_source(backbone, chosen.views, data.train, settings)
    started = time.monotonic()
    cache = FeatureCache(directories.cache, source, device=settings.device)
    every = data.train + data.validation + data.test
    gather_features(cache, worker.part(every), reporter)
    worker.wait()
    gathered = time.monotonic()
    learned = data.train + data.validation
    roi = read_region(settings.roi, cache, learned[0]) if settings.roi else None
    context = TrainContext(
        learned, cache, settings.seed, schedule=settings.schedule, steps=settings.steps,
        roi=roi.on_grid(source.layout.grid) if roi else None, reporter=reporter, worker=worker,
        another_day=frozenset(file.sha256 for file in data.validation),
        states=TrainingStates(
            directories.training(settings.recipe),
            (
                settings.seed, settings.preset, settings.anomalies, settings.external,
                asdict(settings.push_pull), data.digest, source.digest,
            ),
            resume,
        ),
    )  # fmt: skip
    score = settings.scored(min(source.size.height, source.size.width))

    def exposure(files: tuple[LabelledFile, ...]) -> tuple[LabelledFile, ...]:
        return _anomalies(context.only(files), settings, directories, roi)

    if settings.exposed:
        context = replace(context, defective=exposure(learned), push_pull=settings.push_pull)
    # By content, so that a renamed folder has the same folds.
    calibrated = tuple(evenly(sorted(learned, key=lambda file: file.sha256), CALIBRATED))
    grouped = group_parts(calibrated, cache)
    groups = grouped.groups
    folds = split_folds(groups)
    choices = []
    if grouped.note:
        choices.append(grouped.note)
    if alignment := find_alignment(data.train, source.size, settings):
        choices.append(str(alignment))
    if chosen.weighted and not settings.exposed:
        context, found = find_mirrors(chosen, context, calibrated, groups, score)
        choices += [found] if found else []
    scorer, curve = chosen.learn(context, score)
    drawn: tuple[LabelledFile, ...] = ()
    drawn_folds = np.zeros(0, np.int64)
    if chosen.weighted and not settings.exposed:
        drawn, drawn_folds = _draw(calibrated, folds, context, directories, roi)
    spots, spot_folds = spots_by_fold(calibrated, folds, context)
    cross, cross_drawn = cross_fit(
        chosen, context, calibrated, folds, score, defective=(*drawn, *spots.files),
        defective_folds=np.concatenate([drawn_folds, spot_folds]),
        exposure=exposure if settings.exposed else None,
    )  # fmt: skip
    worker.leave_to_the_first()
    ratio_P = expected_ratio(chosen, scorer, context, cross, folds, score)
    cross, cross_drawn = cross.scaled(ratio_P), cross_drawn.scaled(ratio_P)
    cross_drawn, cross_spots = cross_drawn.of(drawn), cross_drawn.of(spots.files)
    fit_fusion(scorer, cross.branch_scores(scorer.score, scorer.roi_HW))
    if settings.exposed:
        weigh_learned(scorer, 0.0)
    names, drawn_scores = tuple(branch.name for branch in chosen.branches), None
    if drawn:
        scorer, kept, choice = choose_branches(
            scorer, cross.distances, cross_drawn.distances, names,
            [branch.family for branch in chosen.branches],
        )  # fmt: skip
        names, cross = tuple(names[number] for number in kept), cross.only(kept)
        cross_spots = cross_spots.only(kept)
        drawn_scores = cross_drawn.only(kept).fused(scorer)
        choices += [choice] if choice else []
    scores = cross.fused(scorer)
    suspects = find_suspects(calibrated, scores)
    of_other_day = np.array([file.sha256 in context.another_day for file in calibrated])
    if of_other_day.any():
        shift = compare(scores[~of_other_day], scores[of_other_day])
        choices.append(str(shift))
        if shift.sets_thresholds:
            kept_parts = tuple(
                file for file, kept in zip(calibrated, of_other_day, strict=True) if kept
            )
            calibrated, cross = kept_parts, cross.of(kept_parts)
            scores, groups = scores[of_other_day], groups[of_other_day]
    for sentence in choices:
        reporter.say(sentence)
    learned_at = time.monotonic()
    test = evaluate(score_features(scorer, cache, data.test), source.size) if data.test else None
    return Trained(
        scorer, cache, learned, calibrated, scores, len(np.unique(groups)),
        suspects, names, cross, curve, test, drawn_scores, spots, cross_spots.fused(scorer),
        feature_seconds=gathered - started, learning_seconds=learned_at - gathered,
        choices=tuple(choices), mirrors=context.mirrors,
    )  # fmt: skip


def gather_features(cache: FeatureCache, files: Sequence[LabelledFile], reporter: Reporter) -> None:
    """Compute the missing features under a progress bar."""
    with reporter.bar("Features", len(files)) as advance:
        cache.add(files, lambda done, _: advance(done, ""))


def check_settings(data: Dataset, settings: FitSettings) -> None:
    """Raise TrainingError or DatasetError where these parts cannot be learned in this way."""
    chosen = method(settings.preset)
    if settings.exposed and not chosen.learns_anomalies:
        raise TrainingError(
            f"{settings.preset} only remembers good parts; it cannot learn from anomalies.",
            remedy="Choose --preset best or adtr, or leave the anomalies out.",
        )
    if settings.roi and any(branch.sees_whole_images for branch in chosen.branches):
        raise TrainingError(
            f"{settings.preset} compares whole images, and cannot leave a part of them out.",
            remedy="Leave --roi out, or choose --preset quick.",
        )
    check_masks(data.test, settings.pixels)
    if len(data.train) < LEAST:
        raise TrainingError(
            f"{len(data.train)} good parts are too few: they do not show how good parts vary.",
            remedy=f"Give {LEAST} images of different good parts at least; 100 are useful, 300 "
            "are recommended.",
        )


def _draw(
    files: Sequence[LabelledFile],
    folds: NDArray[np.int64],
    context: TrainContext,
    directories: Directories,
    roi: RegionOfInterest | None,
) -> tuple[tuple[LabelledFile, ...], NDArray[np.int64]]:
    """Defects drawn on good parts, and the fold of each one's part."""
    count = min(max(DRAWN_FOR_EACH * len(files), LEAST_DRAWN), MOST_DRAWN)
    drawn = draw_anomalies(
        files, context.cache, tuple(DRAWINGS), count, directories.cache / "anomalies",
        seed=context.seed, roi=roi.pixels if roi else None, reporter=context.reporter,
    )  # fmt: skip
    return drawn, folds[drawn_on(len(files), count, context.seed)]


def _anomalies(
    context: TrainContext,
    settings: FitSettings,
    directories: Directories,
    roi: RegionOfInterest | None,
) -> tuple[LabelledFile, ...]:
    """The anomalies to learn not to rebuild: drawn on the context's parts, or of other things."""
    anomalies: tuple[LabelledFile, ...] = ()
    if settings.anomalies:
        anomalies = draw_anomalies(
            context.files, context.cache, settings.anomalies, ANOMALIES,
            directories.cache / "anomalies", seed=settings.seed,
            roi=roi.pixels if roi else None, reporter=context.reporter,
        )  # fmt: skip
    if settings.external:
        others = external_anomalies(settings.external)
        gather_features(context.cache, others, context.reporter)
        anomalies += others
    return anomalies
