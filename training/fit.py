"""From a folder of good parts to a bundle."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.backbone import Backbone, Stage
from models.bundle import BackboneReference, Manifest, check_recipe_name
from models.image import InputSize, PixelContract
from models.session import Device
from training import losses
from training.calibrate import LEAST, calibrate, statement
from training.checkpoint import build_scorer
from training.data import Dataset, LabelledFile, check_masks, hold_out
from training.errors import TrainingError
from training.evaluation import Evaluation, evaluate, score_features
from training.export import export, git_commit, golden_images, next_version, save_bundle
from training.features import FeatureCache, FeatureSource, channel_statistics
from training.graph import feature_graph
from training.loop import Schedule, TrainingState, epochs, train
from training.networks.adtr import AdtrConfig
from training.networks.scorer import AdtrScorer
from training.presets import PRESETS, PresetName, ScheduleName, schedule_for
from training.progress import Reporter
from training.report import Report, render

HOLD_OUT = 0.15
GOLDEN = 3


@dataclass(frozen=True)
class FitSettings:
    """How a recipe is fitted. `size` is in pixels, `grid` in cells per side."""

    recipe: str
    preset: PresetName = "paper"
    schedule: ScheduleName = "short"
    size: int = 256
    grid: int = 16
    stages: tuple[str, ...] = ()
    pixels: PixelContract = field(default_factory=PixelContract)
    seed: int = 0
    steps: int | None = None
    device: Device = "auto"


@dataclass(frozen=True)
class Places:
    """Directories: where bundles go, and where features and checkpoints are kept."""

    store: Path
    cache: Path

    def checkpoint(self, recipe: str) -> Path:
        return self.store / recipe / ".training" / "checkpoint.pt"


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves: the bundle's path, and what it was made of."""

    path: Path
    scorer: AdtrScorer
    cache: FeatureCache
    test: Evaluation | None
    seconds: float


def fit(
    data: Dataset,
    backbone: Backbone,
    settings: FitSettings,
    places: Places,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Fitted:
    """Train on the good parts of `data` and write a bundle.

    Held-out good parts set the thresholds; test images are reported on and decide nothing.
    Raises DatasetError, BundleError or TrainingError.
    """
    started = time.monotonic()
    reporter = reporter or Reporter()
    check_recipe_name(settings.recipe)
    check_masks(data.test)
    held_out = hold_out(data.train, HOLD_OUT, LEAST)
    if len(held_out) < LEAST:
        raise TrainingError(
            f"{len(data.train)} good images are not enough: {LEAST} are held out to set the "
            "thresholds, and at least as many are learned.",
            remedy=f"Give at least {2 * LEAST}; some 700 let 1 % false rejects be resolved.",
        )
    learned = tuple(file for file in data.train if file.sha256 not in held_out)
    normals = tuple(file for file in data.train if file.sha256 in held_out)

    cache = FeatureCache(places.cache, _source(backbone, settings), device=settings.device)
    gather_features(cache, data.train + data.test, reporter)
    scorer, curve = _learn(learned, data, cache, settings, places, resume, reporter)

    calibration, thresholds = calibrate(
        evaluate(score_features(scorer, cache, normals), cache.source.size).scores
    )
    reporter.say(statement(calibration))
    test = None
    if data.test:
        test = evaluate(score_features(scorer, cache, data.test), cache.source.size)

    images = golden_images([cache.source.read(file.image) for file in normals[:GOLDEN]])
    exported = export(scorer, cache.source, images, device=settings.device)
    manifest = Manifest(
        recipe=settings.recipe,
        version=next_version(places.store, settings.recipe),
        created_at=datetime.now(UTC),
        origin="fit",
        method="adtr",
        input=cache.source.size,
        pixels=settings.pixels,
        calibration=calibration,
        thresholds=thresholds,
        backbone=BackboneReference(
            name=backbone.manifest.name,
            sha256=backbone.manifest.sha256,
            licence=backbone.manifest.licence,
        ),
        git_commit=git_commit(),
        metrics=test.metrics if test else {},
        sha256={},
    )
    report = render(
        Report(manifest, curve, scorer, cache, normals, test, settings=asdict(settings))
    )
    path = save_bundle(
        places.store, manifest, exported, scorer, [file.sha256 for file in learned], report
    )
    places.checkpoint(settings.recipe).unlink()
    return Fitted(path, scorer, cache, test, time.monotonic() - started)


def gather_features(
    cache: FeatureCache, files: tuple[LabelledFile, ...], reporter: Reporter
) -> None:
    """Compute the missing features under a progress bar."""
    with reporter.bar("Features", len(files)) as advance:
        cache.add(files, lambda done, _: advance(done, ""))


def _source(backbone: Backbone, settings: FitSettings) -> FeatureSource:
    if settings.size % settings.grid:
        raise TrainingError(
            f"A grid of {settings.grid} does not divide an input of {settings.size} pixels.",
            remedy="Choose --size as a multiple of --grid.",
        )
    stages = _stages(backbone, settings.stages)
    coarsest = max(stage.stride for stage in stages)
    if settings.size % coarsest:
        raise TrainingError(
            f"An input of {settings.size} pixels is no multiple of the coarsest stage's stride "
            f"of {coarsest}.",
            remedy="Choose another --size, or leave that stage out with --stages.",
        )
    return FeatureSource(
        feature_graph(backbone, stages, settings.size // settings.grid),
        InputSize(height=settings.size, width=settings.size),
        settings.pixels,
    )


def _stages(backbone: Backbone, names: tuple[str, ...]) -> tuple[Stage, ...]:
    known = {stage.name: stage for stage in backbone.manifest.stages}
    unknown = set(names) - set(known)
    if unknown:
        raise TrainingError(
            f"The backbone has no stage {', '.join(sorted(unknown))}.",
            remedy=f"Choose --stages among {', '.join(known)}.",
        )
    return tuple(known[name] for name in names or known)


def _learn(
    learned: tuple[LabelledFile, ...],
    data: Dataset,
    cache: FeatureCache,
    settings: FitSettings,
    places: Places,
    resume: bool,
    reporter: Reporter,
) -> tuple[AdtrScorer, list[float]]:
    statistics = channel_statistics(cache, learned)
    channels, height, width = cache[learned[0].sha256].shape
    config = AdtrConfig(channels, height, width, **PRESETS[settings.preset].network)
    scorer = build_scorer(
        config, settings.size // settings.grid, torch.from_numpy(statistics.mean),
        torch.from_numpy(statistics.std), seed=settings.seed,
    )  # fmt: skip
    deviation = scorer.standardise.std.flatten()
    scorer.network.start_at_components(
        torch.from_numpy(statistics.covariance) / torch.outer(deviation, deviation)
    )
    schedule = schedule_for(settings.preset, settings.schedule, len(learned))
    if settings.steps:
        schedule = Schedule(**{**asdict(schedule), "steps": settings.steps})
    indices = epochs(len(learned), schedule.batch, settings.seed)

    def batch(step: int) -> Tensor:
        features = np.stack([cache[learned[i].sha256] for i in indices(step)])
        return scorer.standardise(torch.from_numpy(features))

    def loss(features: Tensor) -> Tensor:
        return losses.reconstruction(features, scorer.network(features))

    state = TrainingState(
        places.checkpoint(settings.recipe),
        _identity(settings, data, cache, schedule),
        resume=resume,
    )
    with reporter.bar("Training", schedule.steps) as advance:
        curve = train(
            scorer.network, schedule, batch, loss, seed=settings.seed, state=state,
            progress=lambda step, value: advance(step, f"loss {value:.1f}"),
        )  # fmt: skip
    return scorer.eval(), curve


def _identity(settings: FitSettings, data: Dataset, cache: FeatureCache, schedule: Schedule) -> str:
    """Names a training by all that decides its result."""
    facts = [settings.seed, settings.preset, data.digest, cache.source.digest, asdict(schedule)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
