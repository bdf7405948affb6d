"""From a folder of good parts to a bundle."""

import math
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.backbone import Backbone
from models.bundle import BackboneReference, Manifest, Thresholds, check_recipe_name
from training.calibration.suspects import suspects_line
from training.calibration.thresholds import calibrate, statement
from training.data.folders import Dataset
from training.data.levels import used_levels
from training.directories import Directories
from training.engine.distributed import Worker, enlisted
from training.engine.export import export, git_commit, golden_images, next_version, save_bundle
from training.engine.training_states import remove_checkpoints
from training.evaluation.scoring import Evaluation
from training.evaluation.verdicts import by_label
from training.fitting.effort import foresee, look
from training.fitting.input_choice import choose_input
from training.fitting.inputs import with_alignment
from training.fitting.settings import FitSettings
from training.fitting.timing import image_times
from training.fitting.training import Trained, check_settings, train_recipe
from training.methods.train_context import evenly
from training.progress import Reporter
from training.reporting.report import Report, render

# Good parts whose scores a bundle carries, to be replayed where it is served.
GOLDEN = 3
_LOOKED_AT = 20  # parts whose levels are counted


@dataclass(frozen=True)
class Fitted:
    """A bundle's path, the training that it was made of, and the median time of an image."""

    path: Path
    trained: Trained
    seconds: float
    milliseconds: float


def fit(
    data: Dataset,
    backbone: Backbone,
    settings: FitSettings,
    directories: Directories,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Fitted:
    """Train on the good parts of `data` and write a bundle.

    All good parts are learned, and set the thresholds by the scores of models that did not learn
    them; test images are reported on and decide nothing. Of
    several processes, only the first returns. Raises DatasetError, BundleError or TrainingError.
    """
    started = time.monotonic()
    check_recipe_name(settings.recipe)
    check_settings(data, settings)
    budget_ms = settings.budget_ms if settings.size == "auto" else math.inf
    settings = with_alignment(data.train, settings)
    notes = _contrast(data, settings)
    with enlisted(settings.device) as worker:
        reporter = reporter if reporter and worker.rank == 0 else Reporter()
        for note in (*data.notes, *notes):
            reporter.say(f"Note: {note}")
        if not resume and worker.rank == 0:  # those of another would be found when this goes on
            remove_checkpoints(directories.training(settings.recipe))
        inputs = None
        if worker.count == 1:  # processes that learn together could choose differently
            settings, inputs = choose_input(data, backbone, settings, directories, reporter)
        trained = train_recipe(
            data, backbone, settings, directories, resume=resume, reporter=reporter, worker=worker
        )
    calibration, thresholds = calibrate(trained.scores, settings.rates, groups=trained.groups)
    calibration = calibration.model_copy(update={"suspects": trained.suspects})
    reporter.say(statement(calibration))
    if trained.suspects:
        reporter.say(suspects_line(trained.suspects))
    spots = trained.spots.sensitivity(trained.spot_scores, thresholds)
    reporter.say(str(spots))
    if trained.test:
        reporter.say(verdicts_line(trained.test, thresholds))
    inspected = float(trained.scorer.roi_HW.mean())
    if inspected < 1:
        reporter.say(f"The region of interest is {inspected:.0%} of the image.")
    source = trained.cache.source
    images = golden_images([source.read(file.image) for file in trained.learned[:GOLDEN]])
    exported = export(trained.scorer, source, images, device=settings.device)
    times = image_times(exported.model, source.size, settings.device)
    milliseconds = float(np.median(times))
    how_long = _time_line(times, budget_ms, aligned=source.layout.extent is not None)
    reporter.say(how_long)
    manifest = Manifest(
        recipe=settings.recipe,
        version=next_version(directories.store, settings.recipe),
        created_at=datetime.now(UTC),
        origin="fit",
        method=settings.preset,
        input=source.size,
        pixels=settings.pixels,
        inspected=inspected,
        align="none" if settings.align == "auto" else settings.align,
        mirrors=trained.mirrors,
        calibration=calibration,
        thresholds=thresholds,
        backbone=BackboneReference(
            name=backbone.manifest.name,
            sha256=backbone.manifest.sha256,
            licence=backbone.manifest.licence,
        ),
        git_commit=git_commit(),
        metrics=trained.test.metrics if trained.test else {},
        branches=trained.branches,
        appearance=look(source, trained.learned),
        effort=foresee(
            trained.cache, trained.learned, trained.learning_seconds, Worker(device=worker.device)
        ),
        sha256={},
    )
    report = render(
        Report(
            manifest, trained.curve, trained.scorer, trained.cache, trained.good, trained.test,
            data.digest, asdict(settings), spots,
            choices=(*([str(inputs)] if inputs else []), *trained.choices, how_long),
            inputs=inputs.points if inputs else (),
            notes=(*data.notes, *notes), by_others=(trained.cross,),
        )
    )  # fmt: skip
    path = save_bundle(
        directories, manifest, exported, trained.scorer,
        trained.scored_by_others, report,
    )  # fmt: skip
    remove_checkpoints(directories.training(settings.recipe))
    return Fitted(path, trained, time.monotonic() - started, milliseconds)


def _time_line(times: NDArray[np.float64], budget_ms: float, *, aligned: bool) -> str:
    """How long an image takes, and what makes it faster where even the least disturbed takes longer
    than it may: an input's size is chosen before anything is learned."""
    text = f"An image takes {np.median(times):.0f} ms on this machine"
    if times[0] <= budget_ms:
        return f"{text}."
    cures = "choose a smaller --size or a faster --backbone"
    if aligned:
        cures += ", or --align none where parts lie alike"
    return f"{text}, longer than it may ({budget_ms:g} ms, --budget-ms): {cures}."


def _contrast(data: Dataset, settings: FitSettings) -> tuple[str, ...]:
    """What is lost where samples of more than 8 bits use little of their range."""
    if settings.pixels.bit_depth == 8 or settings.pixels.window:
        return ()
    levels = used_levels(evenly(data.train, _LOOKED_AT), settings.pixels.bit_depth)
    return () if levels is None or levels.enough else (str(levels),)


def verdicts_line(test: Evaluation, thresholds: Thresholds) -> str:
    """What the thresholds do to test images, in a sentence."""
    found = by_label(test.scores, test.anomalous, thresholds)
    parts = []
    if good := found.get("good"):
        parts.append(f"{good.review + good.ng} of {good.count} good parts are stopped")
    if bad := found.get("defective"):
        parts.append(f"{bad.ok} of {bad.count} defective ones pass, {bad.ng} are rejected outright")
    return f"Of the test images, {', '.join(parts)}."
