"""The anomaly-available path: labels move a champion, and are what it is compared on."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from models.bundle import CHECKPOINT, MODEL, TRAINED_ON, Bundle, Manifest
from models.durable import write_file
from models.sample import Snapshot
from models.session import Device
from training.backbones.feature_graph import feature_part
from training.backbones.features import FeatureCache, FeatureSource
from training.calibration.thresholds import Rates, calibrate, statement
from training.data.folders import Dataset, LabelledFile, read_snapshot
from training.engine.checkpoint import load_checkpoint
from training.engine.distributed import enlisted
from training.engine.effort import look, measure
from training.engine.export import export, git_commit, golden_images, next_version, save_bundle
from training.errors import TrainingError
from training.evaluation.comparison import Comparison
from training.evaluation.scoring import Evaluation, evaluate, score_features
from training.evaluation.sensitivity import find_spots
from training.finetuning.candidate import Learning, split_labels, train_candidate
from training.fitting.fit import GOLDEN
from training.fitting.training import Places, gather_features
from training.progress import Reporter
from training.reporting.report import Report, render

RejectBy = Literal["rate", "f1"]


@dataclass(frozen=True)
class RetrainSettings(Learning):
    """How labels are learned, and where the backbone runs. `reject_by` says what sets the reject
    line: the champion's false-reject rate, or the best F1 on held-out labels."""

    reject_by: RejectBy = "rate"
    device: Device = "auto"


@dataclass(frozen=True)
class Retrained:
    """`path` is the candidate bundle, or None where it was worse; `report` says why."""

    path: Path | None
    report: Path
    comparison: Comparison


def retrain(
    snapshot: Snapshot,
    champion: Bundle,
    places: Places,
    settings: RetrainSettings | None = None,
    *,
    data: Dataset | None = None,
    reporter: Reporter | None = None,
) -> Retrained:
    """Train the champion's weights on the snapshot's labels and on the good parts of `data`.

    A candidate bundle is written only if it is not worse than the champion on labels that
    neither trained on. Raises TrainingError, SnapshotError or BundleError.
    """
    settings = settings or RetrainSettings()
    reporter = reporter or Reporter()
    seen = frozenset(champion.read(TRAINED_ON).decode().split())
    labels = split_labels(_gather(snapshot, champion, data), seen)
    source = feature_source(champion)
    cache = FeatureCache(places.cache, source, device=settings.device)
    gather_features(cache, labels.good + labels.defective + labels.held_out, reporter)

    before = load_checkpoint(champion.read(CHECKPOINT))
    with enlisted(settings.device) as worker:
        candidate = train_candidate(before, cache, labels, settings, reporter, worker)
    scorer, comparison, normals = candidate.scorer, candidate.comparison, labels.normals
    after = comparison.candidate
    calm = evaluate(score_features(scorer, cache, normals), source.size)
    manifest = _manifest(champion, snapshot, places, after, settings.reject_by).model_copy(
        update={
            "appearance": look(source, normals + labels.good),
            "effort": measure(cache, labels.good, candidate.seconds),
        }
    )
    reporter.say(statement(manifest.calibration))
    spots = find_spots(scorer, cache, normals, manifest.thresholds, reporter)
    report = render(
        Report(
            manifest, candidate.curve, scorer, cache, calm, after, snapshot.digest,
            asdict(candidate.learning),
            spots, comparison,
        )
    )  # fmt: skip
    if comparison.worse:
        path = places.store / champion.manifest.recipe / ".training" / "refused.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, report.encode())
        return Retrained(None, path, comparison)
    images = golden_images([source.read(file.image) for file in normals[:GOLDEN]])
    exported = export(scorer, source, images, device=settings.device)
    trained_on = seen.union(file.sha256 for file in labels.good + labels.defective)
    path = save_bundle(places, manifest, exported, scorer, sorted(trained_on), report)
    return Retrained(path, path / "report.html", comparison)


def feature_source(bundle: Bundle) -> FeatureSource:
    """How a bundle's images become features: the front of its own graph, so that a retraining
    needs no backbone file."""
    manifest = bundle.manifest
    return FeatureSource(feature_part(bundle.read(MODEL)), manifest.input, manifest.pixels)


def _gather(snapshot: Snapshot, champion: Bundle, data: Dataset | None) -> tuple[LabelledFile, ...]:
    """Every labelled image once; a label from the line outweighs the folder that it was in."""
    recipe = champion.manifest.recipe
    others = {sample.recipe for sample in snapshot.samples} - {recipe}
    if others:
        raise TrainingError(
            f"The snapshot holds labels of {', '.join(sorted(others))}, the champion is of "
            f"{recipe}.",
            remedy=f"Make a snapshot with `kizu snapshot --recipe {recipe}`.",
        )
    files = {file.sha256: file for file in (data.train if data else ())}
    files |= {file.sha256: file for file in read_snapshot(snapshot)}
    return tuple(files.values())


def _manifest(
    champion: Bundle, snapshot: Snapshot, places: Places, after: Evaluation, reject_by: RejectBy
) -> Manifest:
    given = champion.manifest.calibration
    rates = Rates(review=given.false_review_rate, reject=given.false_reject_rate)
    defective = after.scores[after.anomalous] if reject_by == "f1" else None
    calibration, thresholds = calibrate(after.scores[~after.anomalous], rates, defective)
    recipe = champion.manifest.recipe
    return champion.manifest.model_copy(
        update={
            "version": next_version(places.store, recipe),
            "created_at": datetime.now(UTC),
            "origin": "retrain",
            "parent_version": champion.manifest.version,
            "calibration": calibration,
            "thresholds": thresholds,
            "snapshot": snapshot.digest,
            "git_commit": git_commit(),
            "metrics": after.metrics,
            "sha256": {},
        }
    )
