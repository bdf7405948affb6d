"""The anomaly-available path: labels move a champion, and are what it is compared on."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from models.bundle import CHECKPOINT, MODEL, Bundle, Calibration, Thresholds
from models.durable import write_file
from models.sample import Snapshot
from models.session import Device
from training.backbones.feature_graph import feature_part
from training.backbones.features import FeatureCache, FeatureSource
from training.calibration.suspects import find_suspects
from training.calibration.thresholds import Rates, calibrate, statement
from training.data.folders import Dataset, LabelledFile, read_snapshot
from training.directories import Directories
from training.engine.checkpoint import load_checkpoint
from training.engine.distributed import enlisted
from training.engine.export import export, git_commit, golden_images, next_version, save_bundle
from training.engine.training_states import TrainingStates, remove_checkpoints
from training.errors import TrainingError
from training.evaluation.comparison import Comparison
from training.evaluation.scoring import Evaluation, evaluate
from training.finetuning.areas import counted, read_areas
from training.finetuning.candidate import (
    LEAST_DEFECTIVE,
    Candidate,
    Labels,
    Learning,
    train_candidate,
)
from training.fitting.effort import look, measure
from training.fitting.fit import GOLDEN
from training.fitting.training import gather_features
from training.methods.registry import DEFECTS, Method, method
from training.progress import Reporter
from training.reporting.report import Report, render

RejectBy = Literal["rate", "f1"]


@dataclass(frozen=True)
class RetrainSettings(Learning):
    """How labels are learned, and where the backbone runs. `reject_by` says what sets the reject
    threshold: the champion's false-reject rate, or the best F1 on labels."""

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
    directories: Directories,
    settings: RetrainSettings | None = None,
    *,
    data: Dataset | None = None,
    areas: Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Retrained:
    """Learn the snapshot's labels and the good parts of `data`, from the champion on.

    Good parts are learned as those of a fit. With `areas`, a mask of where defects count,
    thresholds are of these alone. A candidate bundle is written only if it is not worse than the
    champion on labels that neither learned. With `resume`, an interrupted retraining of the same
    labels goes on. Raises TrainingError, DatasetError, SnapshotError or BundleError.
    """
    settings = settings or RetrainSettings()
    reporter = reporter or Reporter()
    labels = _gather(snapshot, champion, data)
    if settings.reject_by == "f1" and len(labels.defective) < LEAST_DEFECTIVE:
        raise TrainingError(
            f"F1 needs labelled defects, and {len(labels.defective)} of {LEAST_DEFECTIVE} are "
            "there.",
            remedy="Label more defective parts, or choose --reject-by rate.",
        )
    source = champion_source(champion)
    cache = FeatureCache(directories.cache, source, device=settings.device)
    gather_features(cache, labels.good + labels.defective, reporter)
    areas_HW = read_areas(areas, cache, _an_image(labels, snapshot)) if areas else None

    before = load_checkpoint(champion.read(CHECKPOINT))
    learned = champion.learned()
    place = directories.training(champion.manifest.recipe)
    how = {name: value for name, value in asdict(settings).items() if name != "device"}
    facts = (how, champion.digest, snapshot.digest, data.digest if data else None)
    with enlisted(settings.device) as worker:
        if not resume and worker.rank == 0:  # those of another would be found when this goes on
            remove_checkpoints(place)
        candidate = train_candidate(
            before, learned, champion_method(champion), cache, labels, settings, reporter, worker,
            directories.cache / "anomalies", champion.manifest.mirrors,
            TrainingStates(place, facts, resume),
        )  # fmt: skip
    scorer, comparison = candidate.scorer, candidate.comparison
    with counted(scorer, areas_HW):
        calibrated, calibration, thresholds = _calibrate(candidate, champion, labels, settings)
    validated = candidate.validated
    choices = [str(validated)] if validated else []
    if areas_HW is not None:
        choices.append(
            f"Thresholds are of the recipe's areas, {float(areas_HW.mean()):.0%} of the image."
        )
        reporter.say(choices[-1])
    reporter.say(statement(calibration))
    manifest = champion.manifest.model_copy(
        update={
            "version": next_version(directories.store, champion.manifest.recipe),
            "created_at": datetime.now(UTC),
            "origin": "retrain",
            "parent_version": champion.manifest.version,
            "branches": tuple(branch.name for branch in candidate.method.branches),
            "calibration": calibration,
            "thresholds": thresholds,
            "snapshot": snapshot.digest,
            "git_commit": git_commit(),
            "metrics": {} if comparison.drawn else comparison.candidate.metrics,
            "appearance": look(source, labels.good),
            "effort": measure(cache, labels.good, candidate.seconds),
            "sha256": {},
        }
    )
    spots = candidate.spots.sensitivity(candidate.spot_scores, thresholds)
    report = render(
        Report(
            manifest, candidate.curve, scorer, cache, calibrated, comparison.candidate,
            snapshot.digest, asdict(settings), spots, comparison,
            choices=tuple(choices),
            by_others=(candidate.good, candidate.defective),
            held_out_errors=validated.errors if validated else {},
        )
    )  # fmt: skip
    remove_checkpoints(place)
    if comparison.worse:
        path = place / "refused.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, report.encode())
        return Retrained(None, path, comparison)
    images = golden_images([source.read(file.image) for file in labels.good[:GOLDEN]])
    exported = export(scorer, source, images, device=settings.device)
    path = save_bundle(directories, manifest, exported, scorer, learned | candidate.scores, report)
    return Retrained(path, path / "report.html", comparison)


def _an_image(labels: Labels, snapshot: Snapshot) -> LabelledFile:
    """One that the recipe inspected, rather than one from a folder."""
    inspected = {sample.image_sha256 for sample in snapshot.samples}
    return next(f for f in (*labels.good, *labels.defective) if f.sha256 in inspected)


def champion_source(bundle: Bundle) -> FeatureSource:
    """How a bundle's images become features: the front of its own graph, so that a retraining
    needs no backbone file."""
    manifest = bundle.manifest
    layout = load_checkpoint(bundle.read(CHECKPOINT)).layout
    graph = feature_part(bundle.read(MODEL))
    return FeatureSource(graph, manifest.input, manifest.pixels, layout)


def champion_method(bundle: Bundle) -> Method:
    """The branches that a bundle's scorer has, but those that know labelled defects."""
    names = [name for name in bundle.manifest.branches if not name.startswith(DEFECTS)]
    return method(bundle.manifest.method).named(names)


def _calibrate(
    candidate: Candidate, champion: Bundle, labels: Labels, settings: RetrainSettings
) -> tuple[Evaluation, Calibration, Thresholds]:
    """Thresholds from good parts that were not chosen by their score."""
    given = champion.manifest.calibration
    rates = Rates(review=given.false_review_rate, reject=given.false_reject_rate)
    scores = candidate.good.fused(candidate.scorer)
    fair = candidate.fair(labels.representative)
    defective = candidate.defective.fused(candidate.scorer)
    groups = max(1, round(candidate.groups * float(fair.mean())))
    calibration, thresholds = calibrate(
        scores[fair], rates, defective if settings.reject_by == "f1" else None, groups=groups
    )
    files = tuple(f for f, chosen in zip(candidate.good.files, fair, strict=True) if chosen)
    calibration = calibration.model_copy(update={"suspects": find_suspects(files, scores[fair])})
    good = evaluate(
        (each for each in candidate.good.scored(candidate.scorer)
         if each[0].sha256 in {file.sha256 for file in files}),
        champion.manifest.input,
    )  # fmt: skip
    return good, calibration, thresholds


def _gather(snapshot: Snapshot, champion: Bundle, data: Dataset | None) -> Labels:
    """Every labelled image once; a label from the line outweighs the folder that it was in."""
    recipe = champion.manifest.recipe
    others = {sample.recipe for sample in snapshot.samples} - {recipe}
    if others:
        raise TrainingError(
            f"The snapshot holds labels of {', '.join(sorted(others))}, the champion is of "
            f"{recipe}.",
            remedy=f"Make a snapshot with `kizu snapshot --recipe {recipe}`.",
        )
    given = data.train + data.validation if data else ()
    labelled = read_snapshot(snapshot)
    files: dict[str, LabelledFile] = {file.sha256: file for file in given}
    files |= {file.sha256: file for file in labelled}
    return Labels(
        good=tuple(file for file in files.values() if file.verdict == "ok"),
        defective=tuple(file for file in files.values() if file.verdict == "ng"),
        representative=frozenset(file.sha256 for file in given),
        another_day=frozenset(
            file.sha256
            for file in (*labelled, *(data.validation if data else ()))
            if file.verdict == "ok"
        ),
    )
