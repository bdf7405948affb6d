"""`benchmark line`: a recipe meets another lot, people label what is reviewed, the model learns.

A model is fitted on one lot. Parts of another lot come one after the other; people say of each one
that is not ok what it is. After so many labels the model is retrained, as the product does it, and
what it becomes inspects the parts that follow. Each model is counted on the same later parts, which
nobody labels.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.backbone import Backbone
from models.bundle import CHECKPOINT, Bundle, open_bundle
from models.image import PixelContract, decode
from models.sample import LabelledImage, Sample, write_snapshot
from training.backbones.features import FeatureCache
from training.benchmarks.results_file import open_results, write_results
from training.benchmarks.verdict_cases import TILE, by_shoot, demo, shuffled
from training.data.folders import Dataset, LabelledFile, read_mvtec
from training.directories import Directories
from training.engine.checkpoint import load_checkpoint
from training.errors import TrainingError
from training.evaluation.scoring import evaluate, score_features
from training.evaluation.verdicts import Verdicts, by_label
from training.finetuning.retrain import RetrainSettings, champion_source, retrain
from training.fitting.fit import fit
from training.fitting.settings import FitSettings
from training.fitting.training import gather_features
from training.methods.registry import DEFAULT
from training.progress import Reporter

# Of red, green and blue: the light of the demo's other lot.
_OTHER_LIGHT = (1.0, 0.95, 0.85)


@dataclass(frozen=True)
class LineCase:
    """`data` gives for a seed the first lot, to fit on, and the other lot's parts as they come."""

    name: str
    data: Callable[[int], tuple[Dataset, tuple[LabelledFile, ...]]]


def line_cases(shared: Path, work: Path) -> dict[str, LineCase]:
    """All cases by name; drawn parts are written to `work`."""

    def tiles(seed: int) -> tuple[Dataset, tuple[LabelledFile, ...]]:
        data = by_shoot(read_mvtec(shared / "data" / TILE))
        return data, shuffled(data.test, seed)

    def caps(seed: int) -> tuple[Dataset, tuple[LabelledFile, ...]]:
        data = demo(work, seed)
        other = in_other_light(demo(work, seed + 1000), work / f"other-light-{seed}")
        return data, shuffled(other.test, seed)

    return {
        "tile-shoots": LineCase("tile-shoots", tiles),
        "demo-light": LineCase("demo-light", caps),
    }


@dataclass(frozen=True)
class LineBenchmark:
    """Cases, and what is fitted on them. A retraining follows every `every` labels, `retrainings`
    at most; with `only_good`, defects among what is reviewed are not labelled. `out` takes models
    and features."""

    cases: Sequence[LineCase]
    backbone: Backbone
    seeds: int
    out: Path
    reporter: Reporter
    preset: str = DEFAULT
    every: int = 50
    retrainings: int = 3
    only_good: bool = False
    settings: RetrainSettings = field(default_factory=RetrainSettings)

    def run(self, json_file: Path) -> dict[str, Any]:
        """Run what is missing in `json_file`, and return all results by case and seed.

        Raises TrainingError where the file holds results of other conditions.
        """
        conditions = {
            "preset": self.preset,
            "backbone_sha256": self.backbone.manifest.sha256,
            "every": self.every,
            "retrainings": self.retrainings,
            "only_good": self.only_good,
        }
        results = open_results(json_file, conditions)
        for case in self.cases:
            for seed in range(self.seeds):
                key = f"{case.name}/{seed}"
                if key not in results["runs"]:
                    self.reporter.say(key)
                    results["runs"][key] = self._run(case, seed)
                    write_results(json_file, results)
        return results

    def _run(self, case: LineCase, seed: int) -> list[dict[str, Any]]:
        data, given = case.data(seed)
        parts = tuple({file.sha256: file for file in given}.values())  # each image comes once
        root = self.out / case.name / str(seed)
        directories = Directories(root / "store", self.out / "features")
        settings = FitSettings(case.name, preset=self.preset, seed=seed)
        path = fit(data, self.backbone, settings, directories, reporter=self.reporter).path
        coming, later = list(parts[::2]), parts[1::2]
        labels: list[LabelledFile] = []
        found = [self._count(open_bundle(path), directories, later, labels=0, refused=False)]
        while len(found) <= self.retrainings:
            champion = open_bundle(path)
            fresh = self._labelled(champion, directories, coming)
            if len(fresh) < self.every:
                break  # no more parts come
            labels += fresh
            result = retrain(
                write_snapshot(root / "snapshots", _samples(labels, case.name)), champion,
                directories, self.settings, data=data, reporter=self.reporter,
            )  # fmt: skip
            path = result.path or path
            found.append(
                self._count(
                    open_bundle(path), directories, later, len(labels), refused=not result.path
                )
            )
        return found

    def _labelled(
        self, bundle: Bundle, directories: Directories, coming: list[LabelledFile]
    ) -> list[LabelledFile]:
        """What people label of the parts that come, taken from the list: `every` at most."""
        scores, _ = _scored(bundle, directories, coming, self.reporter)
        labelled: list[LabelledFile] = []
        for score in scores.tolist():
            if len(labelled) == self.every:
                break
            file = coming.pop(0)
            seen = bundle.manifest.thresholds.verdict(score) != "ok"
            if seen and not (self.only_good and file.verdict == "ng"):
                labelled.append(file)
        return labelled

    def _count(
        self,
        bundle: Bundle,
        directories: Directories,
        later: Sequence[LabelledFile],
        labels: int,
        *,
        refused: bool,
    ) -> dict[str, Any]:
        scores, anomalous = _scored(bundle, directories, later, self.reporter)
        verdicts = by_label(scores, anomalous, bundle.manifest.thresholds)
        counted = {label: asdict(each) for label, each in verdicts.items()}
        point = {"labels": labels, "refused": refused, "verdicts": counted}
        self.reporter.say(_line(point))
        return point


def _scored(
    bundle: Bundle, directories: Directories, files: Sequence[LabelledFile], reporter: Reporter
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N) of files by a bundle, and which are defective."""
    cache = FeatureCache(directories.cache, champion_source(bundle))
    gather_features(cache, files, reporter)
    scorer = load_checkpoint(bundle.read(CHECKPOINT))
    found = evaluate(score_features(scorer, cache, files), cache.source.size, without_pixels={
        file.sha256 for file in files
    })  # fmt: skip
    return found.scores, found.anomalous


def _samples(files: Sequence[LabelledFile], recipe: str) -> Iterator[LabelledImage]:
    """Labels as people give them in passing: a verdict, and no mask."""
    for file in files:
        sample = Sample(
            image_sha256=file.sha256, recipe=recipe, verdict=file.verdict,
            defect_class=file.defect_class,
        )  # fmt: skip
        yield LabelledImage(sample, file.image.read_bytes())


def in_other_light(data: Dataset, folder: Path) -> Dataset:
    """The set's test parts under a warmer lamp, as files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, file in enumerate(data.test):
        path = folder / f"{number}.png"
        if not path.exists():
            pixels = decode(file.image.read_bytes(), PixelContract())
            warm = (pixels * np.array(_OTHER_LIGHT)).round().astype(np.uint8)
            if not cv2.imwrite(str(path), cv2.cvtColor(warm, cv2.COLOR_RGB2BGR)):
                raise TrainingError(f"{path} cannot be written.", remedy="Free some disk space.")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(LabelledFile(path, sha256, file.verdict, file.defect_class))
    return Dataset(data.root, data.train, tuple(files))


def _line(point: Mapping[str, Any]) -> str:
    good, bad = (Verdicts(**point["verdicts"][label]) for label in ("good", "defective"))
    refused = ", no better model was found" if point["refused"] else ""
    return (
        f"After {point['labels']} labels{refused}: {100 * good.stopped:.1f} % of {good.count} good "
        f"parts that follow are stopped, {100 * bad.passed:.1f} % of {bad.count} defects pass"
    )


def table(results: Mapping[str, Any]) -> str:
    """A row for each model of each run."""
    lines = [
        "| case | seed | labels | good parts stopped | defects passed | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key, points in results["runs"].items():
        name, _, seed = key.rpartition("/")
        for point in points:
            good, bad = (Verdicts(**point["verdicts"][label]) for label in ("good", "defective"))
            note = "refused" if point["refused"] else ""
            lines.append(
                f"| {name} | {seed} | {point['labels']} | {100 * good.stopped:.1f} % of "
                f"{good.count} | {100 * bad.passed:.1f} % of {bad.count} | {note} |"
            )
    return "\n".join(lines)
