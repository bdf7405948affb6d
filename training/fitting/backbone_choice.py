"""Which backbone suits a product: tried on good parts and on defects drawn on parts not learned.

No backbone is best on every product. Each is tried by the default method, whatever will be learned,
on the same parts and the same drawings, so that differences are differences of the backbones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.backbone import Backbone
from models.session import Device
from training.backbones.features import FeatureSource
from training.backbones.fused_backbone import can_fuse, fuse_backbones
from training.data.folders import Dataset
from training.directories import Directories
from training.evaluation.bootstrap import draws
from training.evaluation.metrics import image_metrics
from training.fitting.settings import FitSettings
from training.fitting.timing import image_times
from training.fitting.training import train_recipe
from training.methods.train_context import evenly
from training.progress import Reporter

# Good parts that backbones are compared on, at most.
PARTS = 80


@dataclass(frozen=True)
class TriedBackbone:
    """What a backbone found: raw scores (N) of good parts and drawn defects, neither learned;
    metrics of the labelled test images, if there are any; milliseconds an image on two threads."""

    backbone: Backbone
    scores: NDArray[np.float32]
    anomalous: NDArray[np.bool_]
    test: Mapping[str, float]
    milliseconds: float

    @property
    def name(self) -> str:
        """Of the backbone."""
        return self.backbone.manifest.name

    def auroc(self) -> NDArray[np.float64]:
        """Image AUROC on drawn defects (1 + B): of all parts, and of draws of them."""
        every = np.concatenate([np.ones((1, len(self.scores))), draws(self.anomalous)])
        return image_metrics(self.scores, self.anomalous, every)["image_auroc"]


@dataclass(frozen=True)
class BackboneChoice:
    """Backbones that were tried on the same parts, and how long an image may take."""

    tried: tuple[TriedBackbone, ...]
    budget_ms: float = FitSettings.budget_ms

    @property
    def best(self) -> TriedBackbone:
        """The fastest among those that are, within one standard error of the difference, as good
        as the best that keeps to the budget."""
        fastest = min(self.tried, key=lambda one: one.milliseconds)
        within = [one for one in self.tried if one.milliseconds <= self.budget_ms] or [fastest]
        auroc = {one.name: one.auroc() for one in within}
        highest = max(auroc.values(), key=lambda values: float(values[0]))
        as_good = [
            one for one in within if (behind := highest - auroc[one.name])[0] <= behind[1:].std()
        ]
        return min(as_good, key=lambda one: one.milliseconds)

    def __str__(self) -> str:
        found = ", ".join(
            f"{one.name} {100 * one.auroc()[0]:.1f} ({one.milliseconds:.0f} ms)"
            for one in self.tried
        )
        count = int(self.tried[0].anomalous.sum())
        why = (
            "The fastest of those as good as the best"
            if self.best.milliseconds <= self.budget_ms
            else f"None keeps to {self.budget_ms:g} ms; the fastest"
        )
        return (
            f"Backbones, by their image AUROC on {count} drawn defects and their time for an "
            f"image: {found}. {why} is {self.best.name}."
        )


def try_backbones(
    data: Dataset,
    backbones: Sequence[Backbone],
    settings: FitSettings,
    directories: Directories,
    *,
    reporter: Reporter | None = None,
) -> BackboneChoice:
    """Fit each backbone on an even choice of the good parts, then the best two fused, and see what
    they tell apart.

    Test images are reported on and decide nothing. Raises DatasetError or TrainingError.
    """
    reporter = reporter or Reporter()
    settings = settings.by_default_method()
    few = replace(data, train=tuple(evenly(data.train, PARTS)), validation=())
    tried = [_tried(few, backbone, settings, directories, reporter) for backbone in backbones]
    ranked = sorted(tried, key=lambda one: float(one.auroc()[0]), reverse=True)
    both = [one.backbone for one in ranked[:2]]
    if len(both) == 2 and can_fuse(both):
        tried.append(_tried(few, fuse_backbones(both), settings, directories, reporter))
    return BackboneChoice(tuple(tried), settings.budget_ms)


def _tried(
    data: Dataset,
    backbone: Backbone,
    settings: FitSettings,
    directories: Directories,
    reporter: Reporter,
) -> TriedBackbone:
    reporter.say(f"Trying {backbone.manifest.name}")
    trained = train_recipe(data, backbone, settings, directories, reporter=reporter)
    assert trained.drawn is not None  # the default method draws defects
    scores = np.concatenate([trained.scores, trained.drawn])
    return TriedBackbone(
        backbone,
        scores,
        np.arange(len(scores)) >= len(trained.scores),
        trained.test.metrics if trained.test else {},
        _median_time(trained.cache.source, settings.device),
    )


def _median_time(source: FeatureSource, device: Device) -> float:
    return float(np.median(image_times(source.graph, source.size, device)))
