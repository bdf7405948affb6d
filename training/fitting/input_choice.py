"""The input's size: of several, the fastest that finds drawn spots as well as the best.

Larger inputs show smaller defects, and take longer. Nobody knows beforehand how large defects will
be, so spots of many sizes are drawn on good parts, at the camera's resolution, and models that did
not learn the part look for them.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.backbone import Backbone
from training.calibration.thresholds import calibrate
from training.data.folders import Dataset
from training.directories import Directories
from training.errors import TrainingError
from training.evaluation.sensitivity import Sensitivity
from training.fitting.inputs import feature_source, scaled_size, typical_size, usual_side
from training.fitting.settings import FitSettings
from training.fitting.timing import image_times
from training.fitting.training import Trained, train_recipe
from training.methods.registry import method
from training.methods.train_context import evenly
from training.progress import Reporter

# Good parts that sizes are compared on, at most.
PARTS = 40
_STEP = 2**0.5  # between the sides of sizes that are tried
# Of the shorter side, in pixels, above which the backbone sees an image in tiles of this side: as a
# whole one of 2048 pixels takes 1.5 GB.
_WHOLE, _TILE = 1024, 512
LEAST_SIDE = 128  # of what is tried where the usual size takes too long
_RUNS = 5


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
    # The first look leaves out where parts lie: that takes a few milliseconds more.
    found, too_slow = _affordable(data, backbone, replace(settings, align="none"))
    candidates = [replace(candidate, align=settings.align) for candidate in found]
    if len(candidates) == 1:
        if not too_slow:
            return candidates[0], None
        reporter.say(too_slow)
        return candidates[0], InputChoice((), settings.budget_ms, too_slow)
    few = replace(data, train=tuple(evenly(data.train, PARTS)), validation=(), test=())
    tried = []
    for candidate in candidates:
        reporter.say(f"Trying an input of {_name(candidate)} pixels")
        tried.append(_try(few, backbone, candidate, directories, reporter))
    choice = InputChoice(tuple(tried), settings.budget_ms, too_slow)
    reporter.say(str(choice))
    return choice.best.settings, choice


def _affordable(
    data: Dataset, backbone: Backbone, settings: FitSettings
) -> tuple[list[FitSettings], str]:
    """The usual size, and larger ones up to the images' own, for which the backbone keeps to the
    budget, and the first that does not, in words; where the usual one is too slow, the largest
    smaller size that is not."""
    typical = typical_size(data.train)
    own, first = min(typical), usual_side(min(typical))
    found, sides, too_slow = [], [first], ""
    while sides[-1] * _STEP <= own:
        sides.append(sides[-1] * _STEP)
    for side in sides:
        candidate = _sized(side, typical, backbone, settings)
        milliseconds = _backbone_time(data, backbone, candidate)
        if milliseconds > settings.budget_ms:
            too_slow = (
                f"An input of {_name(candidate)} pixels is not tried: the backbone alone takes "
                f"{milliseconds:.0f} ms, and an image may take {settings.budget_ms:g} ms "
                "(--budget-ms)."
            )
            break
        found.append(candidate)
    side = first
    while not found and side / _STEP >= LEAST_SIDE:
        side /= _STEP
        candidate = _sized(side, typical, backbone, settings)
        milliseconds = _backbone_time(data, backbone, candidate)
        if milliseconds <= settings.budget_ms:
            found.append(candidate)
    if not found:
        raise TrainingError(
            f"An image takes {milliseconds:.0f} ms with an input of {_name(candidate)} pixels, and "
            f"may take {settings.budget_ms:g} ms.",
            remedy="Raise --budget-ms, or choose a faster --backbone.",
        )
    return found, too_slow


def _sized(
    shorter: float, typical: tuple[float, float], backbone: Backbone, settings: FitSettings
) -> FitSettings:
    tile = settings.tile
    if tile is None and shorter > _WHOLE and "pixels" not in method(settings.preset).views:
        tile = _TILE
    size = scaled_size(typical, shorter, backbone, settings.stages, tile)
    return replace(settings, size=size, tile=tile)


def _backbone_time(data: Dataset, backbone: Backbone, settings: FitSettings) -> float:
    source = feature_source(backbone, method(settings.preset).views, data.train, settings)
    return float(image_times(source.graph, source.size, settings.device)[0])


def _try(
    few: Dataset,
    backbone: Backbone,
    settings: FitSettings,
    directories: Directories,
    reporter: Reporter,
) -> TriedInput:
    compared = settings.by_default_method()
    trained = train_recipe(few, backbone, compared, directories, reporter=reporter)
    _, thresholds = calibrate(trained.scores, settings.rates, groups=trained.groups)
    source = trained.cache.source
    scores = trained.spot_scores.reshape(-1, len(trained.spots.sides))
    return TriedInput(
        settings,
        float(image_times(source.graph, source.size, settings.device)[0]) + _scorer_time(trained),
        scores >= thresholds.review,
        trained.spots.sensitivity(trained.spot_scores, thresholds),
    )


def _scorer_time(trained: Trained) -> float:
    features = trained.cache.batch([trained.learned[0].sha256])
    times = []
    with torch.inference_mode():
        for _ in range(_RUNS):
            started = time.perf_counter()
            trained.scorer(features)
            times.append(1000 * (time.perf_counter() - started))
    return min(times)


def _name(settings: FitSettings) -> str:
    assert isinstance(settings.size, tuple)
    return "{}×{}".format(*settings.size)
