"""`benchmark verdicts`: what users see of the default fit, at the thresholds that it sets.

Image AUROC says how well good and defective parts could be told apart by the best threshold, which
nobody knows. Here each fit sets its thresholds from good parts alone, and test parts are counted:
good ones that are stopped, defective ones that pass.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.backbone import Backbone
from models.bundle import Thresholds
from training.benchmarks.results_file import open_results, write_results
from training.benchmarks.verdict_cases import VerdictCase
from training.calibration.thresholds import calibrate
from training.data.folders import Dataset
from training.directories import Directories
from training.errors import TrainingError
from training.evaluation.verdicts import Verdicts, by_label
from training.fitting.fit import fit
from training.fitting.input_choice import choose_input
from training.fitting.settings import FitSettings
from training.fitting.training import Trained, train_recipe
from training.methods.registry import DEFAULT
from training.progress import Reporter


@dataclass(frozen=True)
class VerdictBenchmark:
    """Cases, and what is fitted on them. `out` takes models and features."""

    cases: Sequence[VerdictCase]
    backbone: Backbone
    seeds: int
    out: Path
    reporter: Reporter
    preset: str = DEFAULT

    def run(self, json_file: Path) -> dict[str, Any]:
        """Run what is missing in `json_file`, and return all results by case and seed.

        Raises TrainingError where the file holds results of other conditions.
        """
        conditions = {
            "preset": self.preset,
            "backbone": self.backbone.manifest.name,
            "backbone_sha256": self.backbone.manifest.sha256,
        }
        results = open_results(json_file, conditions)
        runs: dict[str, Any] = results["runs"]
        stages = [(case, seed) for case in self.cases for seed in range(case.seeds or self.seeds)]
        with self.reporter.bar("Verdicts", len(stages)) as advance:
            for number, (case, seed) in enumerate(stages):
                key = f"{case.name}/{seed}"
                advance(number, key)
                if key in runs:
                    continue
                runs[key] = self._run(case, seed)
                write_results(json_file, results)
                self.reporter.say(f"{key}: {line(runs[key])}")
            advance(len(stages), "")
        return results

    def _run(self, case: VerdictCase, seed: int) -> dict[str, Any]:
        data = case.data(seed)
        directories = Directories(self.out / case.name / str(seed), self.out / "features")
        settings = FitSettings(case.name, preset=self.preset, seed=seed)
        started = time.monotonic()
        if not case.served:
            settings, _ = choose_input(data, self.backbone, settings, directories, Reporter())
            trained = train_recipe(data, self.backbone, settings, directories)
            return _result(data, trained, time.monotonic() - started)
        fitted = fit(data, self.backbone, settings, directories)
        seconds = time.monotonic() - started
        size = sum(path.stat().st_size for path in fitted.path.iterdir())
        return _result(data, fitted.trained, seconds) | {
            "milliseconds": round(fitted.milliseconds, 1),
            "megabytes": round(size / 1e6, 1),
        }


def _result(data: Dataset, trained: Trained, seconds: float) -> dict[str, Any]:
    test = trained.test
    if test is None:
        raise TrainingError(f"{data.root} has no test images.", remedy="Put some into test/.")
    calibration, thresholds = calibrate(trained.scores, groups=trained.groups)
    size = trained.cache.source.size
    return {
        "good_parts": len(trained.learned),
        "input": [size.width, size.height],
        "branches": list(trained.branches),
        "verdicts": {
            label: asdict(found) for label, found in _verdicts(trained, thresholds).items()
        },
        "image_auroc": test.metrics.get("image_auroc"),
        "automatic_reject": calibration.automatic_reject,
        "seconds": round(seconds, 1),
        "feature_seconds": round(trained.feature_seconds, 1),
    }


def _verdicts(trained: Trained, thresholds: Thresholds) -> Mapping[str, Verdicts]:
    assert trained.test is not None
    return by_label(trained.test.scores, trained.test.anomalous, thresholds)


def line(run: Mapping[str, Any]) -> str:
    """One run in words."""
    found = {label: Verdicts(**counts) for label, counts in run["verdicts"].items()}
    parts = []
    if run["image_auroc"] is not None:
        parts.append(f"image AUROC {100 * run['image_auroc']:.1f}")
    if good := found.get("good"):
        parts.append(f"{100 * good.stopped:.1f} % of {good.count} good parts stopped")
    if bad := found.get("defective"):
        parts.append(f"{100 * bad.passed:.1f} % of {bad.count} defects passed")
        parts.append(f"{100 * bad.rejected:.1f} % rejected")
    return ", ".join([*parts, f"{run['seconds']:.0f} s"])


def table(results: Mapping[str, Any]) -> str:
    """A row for each case: the median over seeds, and in brackets the least and the largest."""
    runs: dict[str, dict[str, Any]] = results["runs"]
    names = list(dict.fromkeys(key.rpartition("/")[0] for key in runs))
    conditions = results["conditions"]
    lines = [
        f"`{conditions['preset']}` on {conditions['backbone']}, percent; the median over seeds and "
        "splits, in brackets the least and the largest",
        "",
        "| case | seeds | good parts | image AUROC | good stopped | good rejected | defects passed "
        "| defects rejected | ms | MB | fit, s |",
        "| --- |" + " --- |" * 10,
    ]
    for name in names:
        of_case = [run for key, run in runs.items() if key.rpartition("/")[0] == name]
        good = [Verdicts(**run["verdicts"]["good"]) for run in of_case]
        bad = [Verdicts(**run["verdicts"]["defective"]) for run in of_case]
        cells = [
            name,
            str(len(of_case)),
            _number([run["good_parts"] for run in of_case]),
            _percent([run["image_auroc"] for run in of_case]),
            _percent([each.stopped for each in good]),
            _percent([each.rejected for each in good]),
            _percent([each.passed for each in bad]),
            _percent([each.rejected for each in bad]),
            _number([run["milliseconds"] for run in of_case if "milliseconds" in run]),
            _number([run["megabytes"] for run in of_case if "megabytes" in run]),
            _number([run["seconds"] for run in of_case]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(values: Sequence[float]) -> str:
    median, low, high = (100 * v for v in (np.median(values), min(values), max(values)))
    return f"{median:.1f}" + (f" ({low:.1f}–{high:.1f})" if len(values) > 1 else "")


def _number(values: Sequence[float]) -> str:
    return f"{np.median(values):.0f}" if values else ""
