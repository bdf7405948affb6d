"""Methods side by side on the same sets, under one protocol; what is measured is never lost.

Every stage (a set, a category, a method, a seed) is written as soon as it is there, and an
interrupted run goes on with the stages that are missing.
"""

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.backbone import Backbone
from models.bundle import MODEL, Bundle, open_bundle
from models.session import open_session
from training.benchmarks.few_labels import labelling, learn_few
from training.benchmarks.results_file import open_results, write_results
from training.benchmarks.stage_files import write_stage
from training.calibration.thresholds import calibrate
from training.data.drawn_defects import DRAWINGS
from training.data.folders import Dataset, joined
from training.directories import Directories
from training.errors import TrainingError
from training.evaluation.bootstrap import draws, interval
from training.evaluation.scoring import Evaluation, score_images
from training.evaluation.verdicts import verdict_shares
from training.fitting.fit import Fitted, fit
from training.fitting.settings import FitSettings, Size
from training.fitting.training import train_recipe
from training.methods.registry import DEFAULT, method
from training.methods.train_context import PushPull
from training.networks.scorer import ScoreSettings
from training.progress import Reporter

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Protocol:
    """How a set is run: side of the input and cells per side, the score's window, in pixels; by
    default as a fit chooses them from the images.

    `served` says whether each model is also exported, and every test image scored once more
    through the file that a service would load.
    """

    size: Size = "auto"
    grid: int | None = None
    pool: int | None = None
    served: bool = True


PROTOCOLS = {"cifar10": Protocol(size=128, grid=8, pool=128, served=False)}
# The category that all of a set make where one model is to know them all.
UNIFIED = "unified"
EXTERNAL = "external"


@dataclass(frozen=True)
class Stage:
    """One training with its measurement."""

    set_name: str
    category: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.set_name}/{self.category}/{self.method}/seed{self.seed}"


@dataclass(frozen=True)
class Benchmark:
    """Sets by name, each of categories by name; where the work goes; and what is run on them.

    Labels are learned by what `champion` has learned. `steps` shortens every training, to try a
    benchmark out. `size` and `grid` override the protocol. With `unified`, one model learns all
    categories of a set, and is measured on each. A method's name can be followed by what it learns
    besides, as in `fast+confetti+external`: kinds of anomalies, images in the folder `external`, or
    in that of the category's name there, if there is one.
    """

    sets: Mapping[str, Mapping[str, Dataset]]
    backbone: Backbone
    methods: Sequence[str]
    seeds: Sequence[int]
    out: Path
    reporter: Reporter
    steps: int | None = None
    champion: str = DEFAULT
    size: int | None = None
    grid: int | None = None
    unified: bool = False
    external: Path | None = None

    def stages(self) -> list[Stage]:
        """All there are to run, category by category. Raises TrainingError for a method that
        there is not."""
        for name in self.methods:
            if not labelling(name):
                self._anomalies(name, "")
        return [
            Stage(set_name, category, name, seed)
            for set_name, categories in self.sets.items()
            for category in ([UNIFIED] if self.unified else categories)
            for seed in self.seeds
            for name in self.methods
        ]

    def run(self, json_file: Path) -> dict[str, Any]:
        """Run what is missing, and return all figures by stage; also written to `json_file`."""
        results = self._earlier(json_file)
        figures: dict[str, Any] = results["figures"]
        stages = self.stages()
        with self.reporter.bar("Benchmark", len(stages)) as advance:
            for number, stage in enumerate(stages):
                advance(number, str(stage))
                given = self._given(stage)
                if str(stage) in figures:
                    _check_same(stage, figures[str(stage)], given)
                    continue
                figures[str(stage)] = given | self._run(stage)
                results["peak_memory_gib"] = max(_peak_gib(), results.get("peak_memory_gib", 0.0))
                write_results(json_file, results)
                self.reporter.say(f"{stage}: {_line(figures[str(stage)])}")
            advance(len(stages), "")
        return results

    def _earlier(self, json_file: Path) -> dict[str, Any]:
        """What an interrupted run left. Raises TrainingError if it measured something else."""
        conditions = {
            "backbone": self.backbone.manifest.name,
            "backbone_sha256": self.backbone.manifest.sha256,
            "steps": self.steps,
            "size": self.size,
            "grid": self.grid,
        }
        return open_results(json_file, conditions, "figures")

    def _given(self, stage: Stage) -> dict[str, str]:
        """What a stage's figures depend on beside its name."""
        given = {"data": self._data(stage).digest}
        if EXTERNAL in stage.method.split("+"):
            given["external"] = str(self._anomalies(stage.method, stage.category)[2])
        return given | ({"champion": self.champion} if labelling(stage.method) else {})

    def _run(self, stage: Stage) -> dict[str, Any]:
        data = self._data(stage)
        if not data.test:
            raise TrainingError(
                f"{stage.category} has no test images.",
                remedy="Put some into test/good and test/<defect>, or leave that product out.",
            )
        how = labelling(stage.method)
        if how:
            return learn_few(
                data, self._champion(stage), self._places(stage), how,
                seed=stage.seed, steps=self.steps, reporter=self.reporter,
            )  # fmt: skip
        protocol = self._protocol(stage.set_name)
        preset, anomalies, external = self._anomalies(stage.method, stage.category)
        settings = FitSettings(
            recipe=stage.category,
            preset=preset,
            size=protocol.size,
            grid=protocol.grid,
            score=ScoreSettings(pool=protocol.pool) if protocol.pool else None,
            anomalies=anomalies,
            external=external,
            push_pull=PushPull(steps=self.steps or PushPull.steps),
            seed=stage.seed,
            steps=self.steps,
        )
        given = (data, self.backbone, settings, self._places(stage))
        gap = {}
        if protocol.served:
            fitted = fit(*given, resume=True, reporter=self.reporter)
            trained = fitted.trained
            gap = {"served_score_gap": _served_gap(fitted)}
        else:
            trained = train_recipe(*given, resume=True, reporter=self.reporter)
        assert trained.test is not None
        write_stage(self._places(stage).store, trained)
        _, thresholds = calibrate(trained.scores, groups=trained.groups)
        return {
            **(self._by_category(stage, trained.test) if self.unified else _whole(trained.test)),
            **verdict_shares(trained.test.scores, trained.test.anomalous, thresholds),
            "feature_seconds": round(trained.feature_seconds, 1),
            "learning_seconds": round(trained.learning_seconds, 1),
            **gap,
        }

    def _data(self, stage: Stage) -> Dataset:
        categories = self.sets[stage.set_name]
        if self.unified:
            return joined(categories.values(), Path(stage.set_name))
        return categories[stage.category]

    def _protocol(self, set_name: str) -> Protocol:
        usual = PROTOCOLS.get(set_name, Protocol())
        pool = self.size if self.size and usual.pool == usual.size else usual.pool
        return replace(usual, size=self.size or usual.size, grid=self.grid or usual.grid, pool=pool)

    def _anomalies(self, name: str, category: str) -> tuple[str, tuple[str, ...], Path | None]:
        """A method's name, the kinds that are drawn for it, and the folder of other images."""
        preset, *besides = name.split("+")
        method(preset)
        drawn = tuple(kind for kind in besides if kind != EXTERNAL)
        unknown = set(drawn) - set(DRAWINGS)
        if unknown:
            raise TrainingError(
                f"{name}: there is no {', '.join(sorted(unknown))} to learn besides.",
                remedy=f"Choose among {', '.join([*DRAWINGS, EXTERNAL])}.",
            )
        if EXTERNAL not in besides:
            return preset, drawn, None
        if self.external is None:
            raise TrainingError(
                f"{name} learns images of other things.", remedy="Name a folder with --external."
            )
        own = self.external / category
        return preset, drawn, own if own.is_dir() else self.external

    def _by_category(self, stage: Stage, test: Evaluation) -> dict[str, Any]:
        """Every category's metrics, and their means."""
        categories = self.sets[stage.set_name]
        found = {}
        for name, data in categories.items():
            inside = {file.sha256 for file in data.test}
            weights = np.array([[float(file.sha256 in inside) for file in test.files]])
            found[name] = {key: float(v) for key, (v,) in test.measure(weights).items()}
        shared = set.intersection(*(set(metrics) for metrics in found.values()))
        means = {key: float(np.mean([m[key] for m in found.values()])) for key in sorted(shared)}
        return means | {"categories": found}

    def _champion(self, stage: Stage) -> Bundle:
        places = self._places(replace(stage, method=self.champion))
        path = places.store / stage.category / "1"
        if not path.is_dir():
            raise TrainingError(
                f"{stage} starts from what {self.champion} has learned, which is not there.",
                remedy=f"Name {self.champion} before it in --methods.",
            )
        return open_bundle(path)

    def _places(self, stage: Stage) -> Directories:
        # Features are those of the set, whatever is made of them.
        return Directories(self.out / str(stage), self.out / stage.set_name / ".features")


def _check_same(stage: Stage, figures: dict[str, Any], given: dict[str, str]) -> None:
    """Raise TrainingError where figures that are there were measured on something else."""
    other = [name for name, value in given.items() if figures.get(name) != value]
    if other:
        raise TrainingError(
            f"The figures of {stage} were measured with another {' and another '.join(other)}.",
            remedy="Name another file with --json, and another folder with --out.",
        )


def _served_gap(fitted: Fitted) -> float:
    """The largest difference between a served and a trained score over every test image."""
    test = fitted.trained.test
    assert test is not None
    session = open_session(open_bundle(fitted.path).read(MODEL))
    served = score_images(session, fitted.trained.cache.source, test.files)
    scores = np.array([score for _, score, _ in served])
    return float(np.abs(scores - test.scores).max())


def _whole(test: Evaluation) -> dict[str, Any]:
    return {**test.metrics, "intervals": _intervals(test)}


def _intervals(test: Evaluation) -> dict[str, tuple[float, float]]:
    """Of each metric, what chance in drawing the test images makes of it, 95 % both ends off."""
    drawn = test.measure(draws(test.anomalous))
    return {name: interval(values, 1 - (1 - CONFIDENCE) / 2) for name, values in drawn.items()}


def _peak_gib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def _line(figures: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4f}" for name, value in figures.items() if isinstance(value, float)
    )
