"""`benchmark curve`: what users see of a model against the number of good parts that it learned."""

from collections.abc import Mapping
from typing import Any

from training.evaluation.verdicts import Verdicts
from training.reporting import plots

Points = dict[int, list[tuple[float, float]]]


def learning_curve(results: Mapping[str, Any]) -> dict[str, str]:
    """A plot for each set, as a data URL: good parts stopped and defects passed, in percent."""
    found: dict[str, Points] = {}
    for key, run in results["runs"].items():
        name = key.partition("/")[0].rpartition("-")[0]
        good, bad = (Verdicts(**run["verdicts"][label]) for label in ("good", "defective"))
        of_set = found.setdefault(name, {})
        of_set.setdefault(run["good_parts"], []).append((100 * good.stopped, 100 * bad.passed))
    return {name: _plot(points) for name, points in found.items()}


def _plot(points: Points) -> str:
    counts = sorted(points)
    stopped, passed = (
        [[pair[which] for pair in points[count]] for count in counts] for which in (0, 1)
    )
    return plots.bands(
        counts,
        {"good parts stopped": (stopped, plots.GOOD), "defects passed": (passed, plots.BAD)},
        "good parts learned",
        "percent",
    )


def page(results: Mapping[str, Any]) -> str:
    """The plots of all sets as one HTML page."""
    figures = "".join(
        f'<h2>{name}</h2><img alt="learning curve of {name}" src="{plot}">'
        for name, plot in learning_curve(results).items()
    )
    runs = len(results["runs"])
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Learning curve</title>'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;"
        "padding:0 1rem}</style><h1>Learning curve</h1><p>What the default thresholds do to test "
        "images against the number of good parts: the median over seeds, and from the least to the "
        f"largest. {runs} fits.</p>{figures}</html>"
    )
