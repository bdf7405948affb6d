"""A benchmark's figures: a Markdown table to read, a CSV with everything."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from training.evaluation.verdicts import SHARES
from training.reporting.plots import TITLES

Figures = Mapping[str, Any]
SHOWN = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_aupro", *SHARES)
COLUMNS = TITLES | SHARES
CONFIDENCE = 0.95

# In percent, as printed (arXiv 2209.01816): the paper's own and the baselines it names.
PAPER: dict[str, tuple[tuple[str, dict[str, float]], ...]] = {
    "mvtec": (
        ("the paper's ADTR", {"image_auroc": 96.4, "pixel_auroc": 97.2}),
        ("the paper's ADTR+ (with anomalies)", {"image_auroc": 96.9, "pixel_auroc": 97.5}),
        ("SPADE, in the paper", {"image_auroc": 85.5, "pixel_auroc": 96.0}),
    ),
    "cifar10": (
        ("the paper's ADTR", {"image_auroc": 94.7}),
        ("the paper's ADTR+ (with anomalies)", {"image_auroc": 96.1}),
        ("KDAD, in the paper", {"image_auroc": 87.2}),
    ),
}


def parse(key: str) -> tuple[str, str, str, int]:
    """A stage's name: set, category, method, seed."""
    set_name, category, method, seed = key.split("/")
    return set_name, category, method, int(seed.removeprefix("seed"))


def markdown(results: Mapping[str, Any]) -> str:
    """A table for each set: the mean over its categories, with an interval over seeds.

    Where there is one seed, the interval is a bootstrap's over the test images, given for a set
    of one category only.
    """
    figures: dict[str, Figures] = results["figures"]
    lines: list[str] = []
    for set_name in _distinct(parse(key)[0] for key in figures):
        lines += [f"**{set_name}** on {results['conditions']['backbone']}, percent", ""]
        lines += [f"| | {' | '.join(COLUMNS[m] for m in SHOWN)} | seconds |"]
        lines += ["| --- |" + " --- |" * (len(SHOWN) + 1)]
        for method in _distinct(parse(key)[2] for key in figures if parse(key)[0] == set_name):
            runs = by_seed(figures, set_name, method)
            if any("before" in run for run in runs):
                before = [run["before"] for run in runs if "before" in run]
                cells = [cell(before, metric) for metric in SHOWN]
                lines.append(f"| before {method} | {_row(cells)} | |")
            seconds = np.mean([run["learning_seconds"] for run in runs])
            cells = [cell(runs, metric) for metric in SHOWN]
            lines.append(f"| {method} | {_row(cells)} | {seconds:.0f} |")
        for title, known in PAPER.get(set_name, ()):
            cells = [f"{known[metric]:.1f}" if metric in known else "" for metric in SHOWN]
            lines.append(f"| *{title}* | {_row(cells)} | |")
        lines.append("")
    gaps = [run["served_score_gap"] for run in figures.values() if "served_score_gap" in run]
    if gaps:
        lines.append(f"Served against trained scores, every test image: at most {max(gaps):.1e}.")
    if "peak_memory_gib" in results:
        lines.append(f"Peak memory: {results['peak_memory_gib']} GiB.")
    return "\n".join(lines)


def by_seed(figures: Mapping[str, Figures], set_name: str, method: str) -> list[dict[str, Any]]:
    """For each seed, the mean over the categories that are there."""
    seeds: dict[int, list[Figures]] = {}
    for key, run in figures.items():
        of_set, _, of_method, seed = parse(key)
        if (of_set, of_method) == (set_name, method):
            seeds.setdefault(seed, []).append(run)
    return [_mean(runs) for _, runs in sorted(seeds.items())]


def cell(runs: Sequence[Figures], metric: str) -> str:
    """Mean and interval of a metric, in percent."""
    values = [run[metric] for run in runs if metric in run]
    if not values:
        return "refused" if any("refused" in run for run in runs) else ""
    mean = 100 * float(np.mean(values))
    if len(values) > 1:
        deviation = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        half = 100 * deviation * float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
        missing = len(runs) - len(values)
        return f"{mean:.1f} ± {half:.1f}" + (f" ({missing} refused)" if missing else "")
    interval = runs[0].get("intervals", {}).get(metric)
    if interval is None:
        return f"{mean:.1f}"
    return f"{mean:.1f} ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"


def comma_separated(results: Mapping[str, Any]) -> str:
    """Every stage's figures, one line each."""
    metrics = [*COLUMNS, "feature_seconds", "learning_seconds", "served_score_gap"]
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["set", "category", "method", "seed", "backbone", *metrics, "refused"])
    for key, run in results["figures"].items():
        values = [run.get(metric, "") for metric in metrics]
        backbone = results["conditions"]["backbone"]
        writer.writerow([*parse(key), backbone, *values, run.get("refused", "")])
    return lines.getvalue()


def _mean(runs: Sequence[Figures]) -> dict[str, Any]:
    if len(runs) == 1:
        return dict(runs[0])
    shared = set.intersection(*(set(run) for run in runs)) & {*COLUMNS, "learning_seconds"}
    found: dict[str, Any] = {name: float(np.mean([run[name] for run in runs])) for name in shared}
    if all("before" in run for run in runs):
        found["before"] = _mean([run["before"] for run in runs])
    return found | ({"refused": True} if any("refused" in run for run in runs) else {})


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _row(cells: Sequence[str]) -> str:
    return " | ".join(cells)
