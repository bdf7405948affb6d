"""A benchmark as one HTML page: figures, curves, histograms, and what was found and missed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.benchmarks.stage_files import read_stage
from training.benchmarks.tables import COLUMNS, PAPER, SHOWN, by_seed, cell, parse
from training.reporting import plots
from training.reporting.report import page


def render(results: Mapping[str, Any], out: Path) -> str:
    """The page as HTML, with nothing outside of it; `out` is where the stages left their files."""
    sets: dict[str, dict[str, list[str]]] = {}
    for key in results["figures"]:
        set_name, category, _, _ = parse(key)
        sets.setdefault(set_name, {}).setdefault(category, []).append(key)
    return page(
        "benchmark.html.jinja",
        conditions=results["conditions"],
        titles=[COLUMNS[metric] for metric in SHOWN],
        sets=[
            {
                "name": name,
                "rows": _rows(results["figures"], name),
                "categories": [_category(category, keys, out) for category, keys in inside.items()],
            }
            for name, inside in sets.items()
        ],
    )


def _rows(figures: Mapping[str, Any], set_name: str) -> list[tuple[str, list[str], str]]:
    """(method, a cell per metric, what kind of row) for each method, and for the paper's."""
    rows = []
    for method in dict.fromkeys(parse(key)[2] for key in figures if parse(key)[0] == set_name):
        runs = by_seed(figures, set_name, method)
        before = [run["before"] for run in runs if "before" in run]
        if before:
            title = f"before {method}"
            rows.append((title, [cell(before, metric) for metric in SHOWN], "soft"))
        rows.append((method, [cell(runs, metric) for metric in SHOWN], ""))
    for title, known in PAPER.get(set_name, ()):
        cells = [f"{known[metric]:.1f}" if metric in known else "" for metric in SHOWN]
        rows.append((title, cells, "soft"))
    return rows


def _category(category: str, keys: list[str], out: Path) -> dict[str, Any]:
    """What its first seed left."""
    first = min(parse(key)[3] for key in keys)
    stages = {parse(key)[2]: read_stage(out / key) for key in keys if parse(key)[3] == first}
    kept = {method: stage for method, stage in stages.items() if stage}
    curves = {
        name: {m: _curve(stage[name]) for m, stage in kept.items() if stage[name]}
        for name in ("roc", "precision_recall", "region_overlap")
    }
    best = max(kept, key=lambda m: _area(kept[m]["roc"]), default=None)
    return {
        "name": category,
        "curves": [
            (title, plots.curves(curves[name], x, y, limit))
            for name, title, x, y, limit in (
                ("roc", "ROC by image", "good parts refused", "defective found", 1.0),
                ("precision_recall", "Precision and recall by pixel", "recall", "precision", 1.0),
                ("region_overlap", "PRO", "good pixels marked", "overlap of regions", 0.3),
            )
            if curves[name]
        ],
        "histograms": [(method, _histogram(stage)) for method, stage in kept.items()],
        "best": best,
        "examples": kept[best]["examples"] if best else {},
    }


def _histogram(stage: Mapping[str, Any]) -> str:
    return plots.histogram(
        {
            "good": (np.array(stage["good"]), plots.GOOD),
            "defective": (np.array(stage["defective"]), plots.BAD),
        }
    )


def _curve(axes: list[list[float]]) -> plots.Curve:
    return np.array(axes[0]), np.array(axes[1])


def _area(axes: list[list[float]] | None) -> float:
    return float(np.trapezoid(axes[1], axes[0])) if axes else 0.0
