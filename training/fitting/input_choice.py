"""The input's size: of several, the fastest that finds drawn spots as well as the best.

Larger inputs show smaller defects, and take longer. Nobody knows beforehand how large defects will
be, so spots of many sizes are drawn on good parts, at the camera's resolution, and models that did
not learn the part look for them.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.backbone import Backbone
from training.backbones.feature_graph import join
from training.backbones.features import FeatureCache
from training.calibration.cross_fit import cross_fit
from training.calibration.folds import split_folds
from training.calibration.groups import group_parts
from training.calibration.thresholds import calibrate
from training.data.folders import Dataset
from training.directories import Directories
from training.engine.export import export_head
from training.errors import TrainingError
from training.evaluation.sensitivity import Sensitivity
from training.fitting.drawn_anomalies import spots_by_fold
from training.fitting.inputs import feature_source, scaled_size, typical_size, usual_side
from training.fitting.region_of_interest import read_region
from training.fitting.settings import FitSettings
from training.fitting.timing import image_times
from training.fitting.training import gather_features
from training.methods.fusion import fit_fusion, only_branches
from training.methods.registry import DEFAULT, method
from training.methods.train_context import TrainContext, evenly
from training.networks.scorer import Scorer
from training.progress import Reporter

# Good parts that sizes are compared on, at most.
PARTS = 40
_STEP = 2**0.5  # between the sides of sizes that are tried
# Of the shorter side, in pixels, above which the backbone sees an image in tiles of this side: as a
# whole one of 2048 pixels takes 1.5 GB.
_WHOLE, _TILE = 1024, 512
LEAST_SIDE = 128  # of what is tried where the usual size takes too long
# Of the good parts that sizes are compared on.
_FOLDS = 3


@dataclass(frozen=True)
class TriedInput:
    """An input's size, milliseconds an image takes with it, and what was found of drawn spots, by
    part and diameter (P, S)."""

    settings: FitSettings
    milliseconds: float
    found: NDArray[np.bool_]
    sensitivity: Sensitivity

    @property
    def name(self) -> str:
        """Width × height."""
        return _name(self.settings)

    def __str__(self) -> str:
        smallest = self.sensitivity.smallest(self.sensitivity.review)
        reach = f"9 of 10 from {smallest:.0f} px on" if smallest else "no size in 9 of 10"
        return f"{self.name} {self.found.mean():.0%} ({reach}, {self.milliseconds:.0f} ms)"


@dataclass(frozen=True)
class InputChoice:
    """Inputs of several sizes that were tried on the same parts, ascending; none where only one
    keeps to the budget. `too_slow` says which larger one does not, in words."""

    tried: tuple[TriedInput, ...]
    budget_ms: float
    too_slow: str = ""

    @property
    def best(self) -> TriedInput:
        """The fastest among those that find, within one standard error of the difference, as many
        spots as the best."""
        within = self._within or self.tried[:1]
        highest = max(within, key=lambda one: float(one.found.mean()))
        as_good = []
        for one in within:
            behind = highest.found.mean(1) - one.found.mean(1)
            if behind.mean() <= behind.std() / len(behind) ** 0.5:
                as_good.append(one)
        return min(as_good, key=lambda one: one.milliseconds)

    @property
    def _within(self) -> tuple[TriedInput, ...]:
        """Those that keep to the budget."""
        return tuple(one for one in self.tried if one.milliseconds <= self.budget_ms)

    @property
    def points(self) -> tuple[tuple[str, float, float], ...]:
        """Name, milliseconds and share of spots found of each, to be plotted."""
        return tuple((one.name, one.milliseconds, float(one.found.mean())) for one in self.tried)

    def __str__(self) -> str:
        if not self.tried:
            return self.too_slow
        found = "; ".join(map(str, self.tried))
        why = (
            "the fastest of those as good as the best"
            if self._within
            else "the fastest, though none is"
        )
        text = (
            f"Input sizes, by what is found of drawn spots: {found}. {self.best.name} is {why} "
            f"within {self.budget_ms:.0f} ms."
        )
        return f"{text} {self.too_slow}".strip()


def choose_input(
    data: Dataset,
    backbone: Backbone,
    settings: FitSettings,
    directories: Directories,
    reporter: Reporter,
) -> tuple[FitSettings, InputChoice | None]:
    """The settings with the size that suits the images and the time budget, where it is not given;
    and how sizes were compared, where there were several. Raises DatasetError or TrainingError."""
    if settings.size != "auto":
        return settings, None
    candidates, too_slow = _candidates(data, backbone, settings)
    few = replace(data, train=tuple(evenly(data.train, PARTS)), validation=(), test=())
    usual, *larger = candidates
    if larger:
        learned = _learn(few, backbone, usual, directories, reporter)
        for number, candidate in enumerate(larger):
            # Each pixel takes as long as in a smaller input, at least.
            expected_ms = learned.milliseconds * _pixels(candidate) / _pixels(usual)
            if expected_ms > settings.budget_ms:
                too_slow = _too_slow(candidate, f"it would take some {expected_ms:.0f} ms")
                larger = larger[:number]
                break
    if not larger:
        if not too_slow:
            return usual, None
        reporter.say(too_slow)
        return usual, InputChoice((), settings.budget_ms, too_slow)
    reporter.say(f"Trying an input of {_name(usual)} pixels")
    tried = [_try(usual, learned)]
    for candidate in larger:
        reporter.say(f"Trying an input of {_name(candidate)} pixels")
        tried.append(_try(candidate, _learn(few, backbone, candidate, directories, reporter)))
    choice = InputChoice(tuple(tried), settings.budget_ms, too_slow)
    reporter.say(str(choice))
    return choice.best.settings, choice


def _candidates(
    data: Dataset, backbone: Backbone, settings: FitSettings
) -> tuple[list[FitSettings], str]:
    """The usual size, and larger ones up to the images' own. Where the backbone alone takes longer
    than an image may with the usual one, the largest smaller size with which it does not, and why
    the usual one is not tried, in words."""
    typical = typical_size(data.train)
    own, side = min(typical), usual_side(min(typical))
    usual = _sized(side, typical, backbone, settings)
    milliseconds = _backbone_time(data, backbone, usual)
    if milliseconds <= settings.budget_ms:
        found = [usual]
        while side * _STEP <= own:
            side *= _STEP
            found.append(_sized(side, typical, backbone, settings))
        return found, ""
    why = _too_slow(usual, f"the backbone alone takes {milliseconds:.0f} ms")
    smaller = usual
    while side / _STEP >= LEAST_SIDE:
        side /= _STEP
        smaller = _sized(side, typical, backbone, settings)
        milliseconds = _backbone_time(data, backbone, smaller)
        if milliseconds <= settings.budget_ms:
            return [smaller], why
    raise TrainingError(
        f"An image takes {milliseconds:.0f} ms with an input of {_name(smaller)} pixels, and "
        f"may take {settings.budget_ms:g} ms.",
        remedy="Raise --budget-ms, or choose a faster --backbone.",
    )


def _too_slow(candidate: FitSettings, why: str) -> str:
    return (
        f"An input of {_name(candidate)} pixels is not tried: {why}, and an image may take "
        f"{candidate.budget_ms:g} ms (--budget-ms)."
    )


def _pixels(settings: FitSettings) -> int:
    assert isinstance(settings.size, tuple)
    return settings.size[0] * settings.size[1]


def _sized(
    shorter: float, typical: tuple[float, float], backbone: Backbone, settings: FitSettings
) -> FitSettings:
    tile = settings.tile
    if tile is None and shorter > _WHOLE and "pixels" not in method(settings.preset).views:
        tile = _TILE
    size = scaled_size(typical, shorter, backbone, settings.stages, tile)
    return replace(settings, size=size, tile=tile)


def _backbone_time(data: Dataset, backbone: Backbone, settings: FitSettings) -> float:
    # Without finding where parts lie, which takes a few milliseconds more.
    settings = replace(settings, align="none")
    source = feature_source(backbone, method(settings.preset).views, data.train, settings)
    return float(image_times(source.graph, source.size, settings.device)[0])


@dataclass(frozen=True)
class _Learned:
    """What the default method makes of a few parts with an input of some size, and how many
    milliseconds an image takes."""

    context: TrainContext
    scorer: Scorer
    milliseconds: float


def _learn(
    few: Dataset,
    backbone: Backbone,
    settings: FitSettings,
    directories: Directories,
    reporter: Reporter,
) -> _Learned:
    chosen, files = method(DEFAULT), few.train
    source = feature_source(backbone, chosen.views, files, settings)
    cache = FeatureCache(directories.cache, source, device=settings.device)
    gather_features(cache, files, reporter)
    roi = read_region(settings.roi, cache, files[0]) if settings.roi else None
    context = TrainContext(
        files, cache, settings.seed, roi=roi.on_grid(source.layout.grid) if roi else None,
        reporter=reporter,
    )  # fmt: skip
    scorer, _ = chosen.learn(context, settings.scored(min(source.size.height, source.size.width)))
    served = join(source.graph, export_head(scorer))
    times = image_times(served, source.size, settings.device)
    return _Learned(context, scorer, float(times[0]))


def _try(settings: FitSettings, learned: _Learned) -> TriedInput:
    """What branches of the default method find that compare positions: memories of patches find
    about the same spots, and take most of the time to learn."""
    context, chosen = learned.context, method(DEFAULT)
    files = context.files
    groups = group_parts(files, context.cache).groups
    folds = split_folds(groups, _FOLDS)
    spots, spot_folds = spots_by_fold(files, folds, context)
    kept = [n for n, branch in enumerate(chosen.branches) if branch.family == "positions"]
    scorer = only_branches(learned.scorer, kept)
    good, spotted = cross_fit(
        chosen.only(kept), context, files, folds, scorer.score.settings, defective=spots.files,
        defective_folds=spot_folds,
    )  # fmt: skip
    fit_fusion(scorer, good.branch_scores(scorer.score, scorer.roi_HW))
    spot_scores = spotted.fused(scorer)
    _, thresholds = calibrate(good.fused(scorer), settings.rates, groups=len(np.unique(groups)))
    return TriedInput(
        settings,
        learned.milliseconds,
        spot_scores.reshape(-1, len(spots.sides)) >= thresholds.review,
        spots.sensitivity(spot_scores, thresholds),
    )


def _name(settings: FitSettings) -> str:
    assert isinstance(settings.size, tuple)
    return "{}×{}".format(*settings.size)
