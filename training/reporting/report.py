"""A training's report: one HTML page with its plots inside, to be looked at rather than read."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from models.bundle import Manifest
from training.backbones.features import FeatureCache
from training.calibration.cross_fit import CrossFit
from training.calibration.thresholds import statement
from training.data.folders import LabelledFile
from training.evaluation.comparison import Comparison
from training.evaluation.metrics import PRO_LIMIT
from training.evaluation.scoring import Evaluation
from training.evaluation.sensitivity import CONTRAST, Sensitivity
from training.evaluation.verdicts import count_verdicts
from training.networks.scorer import Scorer
from training.reporting import plots
from training.reporting.examples import pictures, telling

EXAMPLES = 6


@dataclass(frozen=True)
class Report:
    """What a report shows. `good` are the good parts that set the thresholds, scored by models that
    did not learn them, `test` is what was tried, `comparison` how the champion did on it; `data`
    names the images by a digest, `choices` say what was chosen by the parts and why, `notes` what
    was found in the folder, `inputs` are sizes that were tried, with their milliseconds and the
    share of drawn spots found. Parts in `by_others` are shown as models see them that did not learn
    them. `held_out_errors` are those on labels that a retraining held out to choose its length,
    by the number of steps."""

    manifest: Manifest
    curve: list[float]
    scorer: Scorer
    cache: FeatureCache
    good: Evaluation
    test: Evaluation | None
    data: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    spots: Sensitivity | None = None
    comparison: Comparison | None = None
    choices: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    by_others: tuple[CrossFit, ...] = ()
    inputs: tuple[tuple[str, float, float], ...] = ()
    held_out_errors: Mapping[int, float] = field(default_factory=dict)


def page(template: str, **values: object) -> str:
    """A template of this folder, filled in; whatever is given is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def render(report: Report) -> str:
    """The page as HTML, with nothing outside of it."""
    return page(
        "report.html.jinja",
        report=report,
        manifest=report.manifest,
        statement=statement(report.manifest.calibration),
        metrics=_metrics(report),
        consequences=_consequences(report),
        curve=plots.loss_curve(report.curve) if report.curve else "",
        held_out=plots.held_out_error(report.held_out_errors) if report.held_out_errors else "",
        histogram=_histogram(report),
        curves=_curves(report.test) if report.test else [],
        contrast=CONTRAST,
        sizes=plots.sensitivity(report.spots) if report.spots else "",
        inputs=plots.inputs(report.inputs) if report.inputs else "",
        changes=plots.changes(report.comparison) if report.comparison else "",
        examples=_examples(report),
        environment=_environment(),
    )


def _metrics(report: Report) -> list[tuple[str, str, str]]:
    before = report.comparison.champion.metrics if report.comparison else {}
    found = report.manifest.metrics
    return [
        (title, f"{100 * found[key]:.1f}", f"{100 * before[key]:.1f}" if before else "")
        for key, title in plots.TITLES.items()
        if key in found
    ]


def _consequences(report: Report) -> list[tuple[str, int, int, int, int]]:
    """Per group of parts: its name, how many, and how many would be ok, review and ng."""
    groups = [("Good parts, each by models that did not learn it", report.good.scores)]
    if report.test is not None:
        test = report.test
        kinds = np.array([file.defect_class or "" for file in test.files])
        if not report.comparison:
            groups.append(("Good parts, test", test.scores[~test.anomalous]))
        for kind in sorted(set(kinds[test.anomalous])):
            chosen = test.scores[test.anomalous & (kinds == kind)]
            groups.append((f"Defective: {kind}" if kind else "Defective", chosen))
    lines = report.manifest.thresholds
    rows = []
    for name, scores in groups:
        found = count_verdicts(scores, lines)
        rows.append((name, found.count, found.ok, found.review, found.ng))
    return rows


def _histogram(report: Report) -> str:
    groups = {"good parts, not learned": (report.good.scores, plots.GOOD)}
    if report.test is not None:
        test = report.test
        if not report.comparison:
            groups["good parts, test"] = (test.scores[~test.anomalous], "#7fb6de")
        groups["defective parts"] = (test.scores[test.anomalous], plots.BAD)
    lines = report.manifest.thresholds
    shown = {"review": lines.review} | ({"ng": lines.ng} if lines.rejects else {})
    return plots.histogram(groups, shown)


def _curves(test: Evaluation) -> list[tuple[str, str]]:
    shown = []
    if roc := test.roc():
        title = "Found against falsely refused, by image (ROC)"
        shown.append((title, plots.curves({"": roc}, "good parts refused", "defective found")))
    if pixels := test.precision_recall():
        title = "Precision against recall, by pixel"
        shown.append((title, plots.curves({"": pixels}, "recall", "precision")))
    if regions := test.region_overlap():
        title = "Overlap with marked regions (PRO)"
        drawn = plots.curves(
            {"": regions}, "good pixels marked", "mean overlap of regions", PRO_LIMIT
        )
        shown.append((title, drawn))
    return shown


def _examples(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled rows of (caption, picture)."""
    rows: dict[str, Sequence[LabelledFile]] = {}
    named = {file.sha256: file for file in report.good.files}
    suspects = report.manifest.calibration.suspects
    if found := [named[each.sha256] for each in suspects if each.sha256 in named][:EXAMPLES]:
        rows["Good parts that look unlike the others: check them"] = found
    if report.test is not None and report.test.anomalous.any():
        rows |= telling(report.test, EXAMPLES)
    order = np.argsort(report.good.scores, kind="stable")[::-1]
    hardest = [report.good.files[i] for i in order[:EXAMPLES]]
    rows["Good parts with the highest scores: the hardest of their kind"] = hardest
    quantiles = report.manifest.calibration.quantiles
    low, high = quantiles[0] * 0.5, quantiles[-1] * 1.3
    lines = report.manifest.thresholds
    return [
        (
            title,
            [
                (f"{p.kind} · {p.score:.2f} · {lines.verdict(p.score)}", p.image)
                for p in pictures(report.scorer, report.cache, files, low, high, report.by_others)
            ],
        )
        for title, files in rows.items()
    ]


def _environment() -> str:
    parts = [f"Python {platform.python_version()}"]
    parts += [f"{name} {version(name)}" for name in ("kizu", "torch", "numpy", "onnx")]
    return ", ".join(parts)
