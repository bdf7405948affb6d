"""`benchmark calibration`: whether thresholds stop as many good parts as they say.

Good caps are drawn, some are fitted on, and the others say what share really lies beyond the
thresholds for 5 % and 1 %. Only drawn parts are many enough to see 1 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.backbone import Backbone
from training.benchmarks.results_file import open_results, write_results
from training.benchmarks.verdict_cases import shuffled
from training.calibration.thresholds import Rates, threshold
from training.data.demo_product import write_demo
from training.data.folders import Dataset, read_mvtec
from training.directories import Directories
from training.fitting.settings import FitSettings
from training.fitting.training import train_recipe
from training.methods.registry import DEFAULT
from training.progress import Reporter

COUNTS = (50, 200, 600)
# Drawn good parts to learn from, and others to count; pixels of the images and of the input.
POOL, OTHERS, IMAGE, SIZE = 1000, 1000, 256, 128


@dataclass(frozen=True)
class CalibrationBenchmark:
    """So many draws of each number of good parts. `out` takes parts and features."""

    backbone: Backbone
    draws: int
    out: Path
    reporter: Reporter
    counts: Sequence[int] = COUNTS
    preset: str = DEFAULT
    pool: int = POOL
    others: int = OTHERS

    def run(self, json_file: Path) -> dict[str, Any]:
        """Run the draws that `json_file` lacks, and return all.

        Raises TrainingError where the file holds results of other conditions.
        """
        conditions = {
            "preset": self.preset,
            "backbone": self.backbone.manifest.name,
            "backbone_sha256": self.backbone.manifest.sha256,
            "pool": self.pool,
            "others": self.others,
        }
        results = open_results(json_file, conditions)
        runs: dict[str, Any] = results["runs"]
        data = self._drawn()
        stages = [(count, draw) for count in self.counts for draw in range(self.draws)]
        with self.reporter.bar("Calibration", len(stages)) as advance:
            for number, (count, draw) in enumerate(stages):
                key = f"{count}/{draw}"
                advance(number, key)
                if key not in runs:
                    runs[key] = self._run(data, count, draw)
                    write_results(json_file, results)
            advance(len(stages), "")
        return results

    def _drawn(self) -> Dataset:
        folder = self.out / "data" / f"caps-{self.pool}-{self.others}"
        if not folder.exists():
            with self.reporter.bar("Drawing", self.pool + self.others) as advance:
                write_demo(
                    folder, seed=1, good=self.pool, test_good=self.others, per_defect=0,
                    size=IMAGE, progress=lambda done, _: advance(done, ""),
                )  # fmt: skip
        return read_mvtec(folder)

    def _run(self, data: Dataset, count: int, draw: int) -> dict[str, float]:
        drawn = replace(data, train=shuffled(data.train, draw)[:count])
        trained = train_recipe(
            drawn,
            self.backbone,
            FitSettings("caps", preset=self.preset, size=SIZE, seed=draw),
            Directories(self.out / "caps", self.out / "features"),
        )
        assert trained.test is not None
        values, rates = np.asarray(trained.scores, np.float64), Rates()
        found = {}
        for name, rate in (("review", rates.review), ("reject", rates.reject)):
            line = threshold(values, rate, trained.groups)
            found[name] = float((trained.test.scores > line.score).mean())
            low, high = line.interval
            found[f"{name}_covered"] = float(low <= found[name] <= high)
        return found


def table(results: Mapping[str, Any]) -> str:
    """For each number of parts, the mean realised rates and how often the interval held them."""
    runs: dict[str, dict[str, float]] = results["runs"]
    nominal = Rates()
    lines = [
        f"Share of new good parts beyond the thresholds for {nominal.review:.0%} and "
        f"{nominal.reject:.0%}, percent: mean (standard deviation) over draws; and how often the "
        "stated interval, of 90 % confidence, held it.",
        "",
        "| good parts | draws | 5 % | held | 1 % | held |",
        "| --- |" + " --- |" * 5,
    ]
    for count in dict.fromkeys(key.partition("/")[0] for key in runs):
        drawn = [run for key, run in runs.items() if key.partition("/")[0] == count]
        cells = [count, str(len(drawn))]
        for name in ("review", "reject"):
            values = np.array([100 * run[name] for run in drawn])
            covered = np.mean([run[f"{name}_covered"] for run in drawn])
            cells += [f"{values.mean():.1f} ({values.std():.1f})", f"{covered:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
