"""The benchmark's figures as a Markdown table: the mean over seeds, and each seed."""

from collections.abc import Callable
from typing import Any

import numpy as np

ROWS = {
    "knn": "k-NN, 8,000 vectors",
    "adtr-paper": "ADTR, `--preset paper`",
    "adtr-fast": "ADTR, `--preset fast`",
    "retrain-masks": "after `retrain`, 10 defects per type with masks",
    "retrain-images": "after `retrain`, the same without masks",
}
METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap")


def tile_table(results: dict[str, Any], seeds: int) -> str:
    """Percent, mean (each seed); retraining rows stand below the champion on the same images."""
    lines = [
        "| | image AUROC | image AP | pixel AUROC | pixel AP | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, title in ROWS.items():
        runs = [results[key] for s in range(seeds) if (key := f"{name}/seed{s}") in results]
        if not runs:
            continue
        if "before" in runs[0]:
            before = [
                _cell([run["before"] for run in runs], metric, _percent) for metric in METRICS
            ]
            lines.append(f"| before, on the remaining test images | {' | '.join(before)} | |")
        cells = [_cell(runs, metric, _percent) for metric in METRICS]
        lines.append(f"| {title} | {' | '.join(cells)} | {_cell(runs, 'seconds', _seconds)} |")
    gaps = [
        run["served_score_gap"]
        for run in results.values()
        if isinstance(run, dict) and "served_score_gap" in run
    ]
    if gaps:
        lines += ["", f"Served against trained scores, every test image: at most {max(gaps):.1e}."]
    if "peak_memory_gib" in results:
        lines += [f"Peak memory of the whole run: {results['peak_memory_gib']} GiB."]
    return "\n".join(lines)


def _cell(runs: list[dict[str, Any]], metric: str, show: Callable[[float], str]) -> str:
    values = [run[metric] for run in runs if metric in run]
    if not values:
        return "refused" if any("refused" in run for run in runs) else ""
    each = ", ".join(show(value) for value in values)
    return f"**{show(float(np.mean(values)))}** ({each})" if len(values) > 1 else show(values[0])


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _seconds(value: float) -> str:
    return f"{value:.0f}"
