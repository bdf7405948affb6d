"""From a folder of good parts to a bundle."""

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from models.backbone import Backbone
from models.bundle import BackboneReference, Manifest, check_recipe_name
from training.calibration.thresholds import calibrate, statement
from training.data.folders import Dataset
from training.engine.distributed import Worker, enlisted
from training.engine.effort import foresee, look
from training.engine.export import export, git_commit, golden_images, next_version, save_bundle
from training.evaluation.sensitivity import find_spots
from training.fitting.training import FitSettings, Places, Trained, train_recipe
from training.progress import Reporter
from training.reporting.report import Report, render

# Good parts whose scores a bundle carries, to be replayed where it is served.
GOLDEN = 3


@dataclass(frozen=True)
class Fitted:
    """A bundle's path, and the training that it was made of."""

    path: Path
    trained: Trained
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

    Held-out good parts set the thresholds; test images are reported on and decide nothing. Of
    several processes, only the first returns. Raises DatasetError, BundleError or TrainingError.
    """
    started = time.monotonic()
    check_recipe_name(settings.recipe)
    with enlisted(settings.device) as worker:
        reporter = reporter if reporter and worker.rank == 0 else Reporter()
        trained = train_recipe(
            data, backbone, settings, places, resume=resume, reporter=reporter, worker=worker
        )
    calibration, thresholds = calibrate(trained.held_out.scores, settings.rates)
    reporter.say(statement(calibration))
    spots = find_spots(trained.scorer, trained.cache, trained.normals, thresholds, reporter)
    reporter.say(str(spots))
    source = trained.cache.source
    images = golden_images([source.read(file.image) for file in trained.normals[:GOLDEN]])
    exported = export(trained.scorer, source, images, device=settings.device)
    manifest = Manifest(
        recipe=settings.recipe,
        version=next_version(places.store, settings.recipe),
        created_at=datetime.now(UTC),
        origin="fit",
        method=settings.preset,
        input=source.size,
        pixels=settings.pixels,
        calibration=calibration,
        thresholds=thresholds,
        backbone=BackboneReference(
            name=backbone.manifest.name,
            sha256=backbone.manifest.sha256,
            licence=backbone.manifest.licence,
        ),
        git_commit=git_commit(),
        metrics=trained.test.metrics if trained.test else {},
        appearance=look(source, trained.normals + trained.learned),
        effort=foresee(
            trained.scorer, trained.cache, trained.normals, Worker(device=worker.device)
        ),
        sha256={},
    )
    report = render(
        Report(
            manifest, trained.curve, trained.scorer, trained.cache, trained.held_out, trained.test,
            data.digest, asdict(settings), spots, weighed=trained.weighed,
        )
    )  # fmt: skip
    path = save_bundle(
        places, manifest, exported, trained.scorer,
        [file.sha256 for file in trained.learned], report,
    )  # fmt: skip
    for checkpoint in places.training(settings.recipe).glob("checkpoint-*.pt"):
        checkpoint.unlink()
    return Fitted(path, trained, time.monotonic() - started)
