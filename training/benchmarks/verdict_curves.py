"""Good parts stopped and defects passed, as curves: against the number of good parts that a model
learned, or against that of labels that it learned afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.evaluation.verdicts import Verdicts
from training.reporting import plots

# By number of parts or labels, for each run the good parts stopped and the defects passed, percent.
Points = dict[int, list[tuple[float, float]]]


@dataclass(frozen=True)
class Curves:
    """One page of them: of each set, by its name, the `points`. `across` names what they are drawn
    against, from few to many on a `logarithmic` axis."""

    title: str
    about: str
    across: str
    points: Mapping[str, Points]
    logarithmic: bool = False


def learning_curves(results: Mapping[str, Any]) -> Curves:
    """Of what `benchmark curve` found."""
    found: dict[str, Points] = {}
    for key, run in results["runs"].items():
        name = key.partition("/")[0].rpartition("-")[0]
        of_set = found.setdefault(name, {})
        of_set.setdefault(run["good_parts"], []).append(_percent(run["verdicts"]))
    return Curves(
        "Learning curve",
        "What the default thresholds do to test images against the number of good parts.",
        "good parts learned", found, logarithmic=True,
    )  # fmt: skip


def line_curves(results: Mapping[str, Any]) -> Curves:
    """Of what `benchmark line` found."""
    found: dict[str, Points] = {}
    for key, models in results["runs"].items():
        of_case = found.setdefault(key.rpartition("/")[0], {})
        for model in models:
            of_case.setdefault(model["labels"], []).append(_percent(model["verdicts"]))
    return Curves(
        "Another lot at the line",
        "Parts of another lot come, people label what is not ok, and the model is retrained. Each "
        "model is counted on the same later parts, which nobody labels.",
        "labels given", found,
    )  # fmt: skip


def page(curves: Curves) -> str:
    """The plots as one HTML page, with nothing outside of it."""
    figures = "".join(
        f'<h2>{name}</h2><img alt="{curves.title} of {name}" src="{_plot(curves, points)}">'
        for name, points in curves.points.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{curves.title}</title>'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;"
        f"padding:0 1rem}}img{{max-width:100%}}</style><h1>{curves.title}</h1><p>{curves.about} "
        f"The median of all runs, and from the least to the largest.</p>{figures}</html>"
    )


def _plot(curves: Curves, points: Points) -> str:
    counts = sorted(points)
    stopped, passed = (
        [[pair[which] for pair in points[count]] for count in counts] for which in (0, 1)
    )
    return plots.bands(
        counts,
        {"good parts stopped": (stopped, plots.GOOD), "defects passed": (passed, plots.BAD)},
        curves.across,
        "percent",
        logarithmic=curves.logarithmic,
    )


def _percent(verdicts: Mapping[str, Any]) -> tuple[float, float]:
    good, bad = (Verdicts(**verdicts[label]) for label in ("good", "defective"))
    return 100 * good.stopped, 100 * bad.passed
