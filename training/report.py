"""A training's report: one HTML page with its plots inside, to be looked at rather than read."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.bundle import Manifest
from models.image import Pixels
from training.calibrate import statement
from training.comparison import Comparison
from training.data import LabelledFile
from training.evaluation import Evaluation, network_mask, score_features
from training.features import FeatureCache
from training.networks.scorer import Scorer

matplotlib.use("Agg")

EXAMPLES = 6
TITLES = {
    "image_auroc": "Image AUROC", "image_ap": "Image AP", "image_f1_max": "Image F1-max",
    "pixel_auroc": "Pixel AUROC", "pixel_ap": "Pixel AP", "pixel_f1_max": "Pixel F1-max",
    "pixel_aupro": "Pixel AUPRO",
}  # fmt: skip
GOOD, BAD, LINE = "#2a78b8", "#c8501e", "#555555"


@dataclass(frozen=True)
class Report:
    """What a report shows. `test` is what was tried, `comparison` how the champion did on it."""

    manifest: Manifest
    curve: list[float]
    scorer: Scorer
    cache: FeatureCache
    normals: Sequence[LabelledFile]
    test: Evaluation | None
    settings: dict[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None


def render(report: Report) -> str:
    """The page as HTML, with nothing outside of it."""
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (Path(__file__).parent / "report.html.jinja").read_text("utf-8")
    )
    manifest = report.manifest
    return template.render(
        report=report,
        manifest=manifest,
        statement=statement(manifest.calibration),
        metrics=_metrics(report),
        curve=_curve(report.curve) if report.curve else "",
        histogram=_histogram(report),
        changes=_changes(report.comparison) if report.comparison else "",
        examples=_examples(report),
    )


def _metrics(report: Report) -> list[tuple[str, str, str]]:
    before = report.comparison.champion.metrics if report.comparison else {}
    return [
        (
            title,
            f"{100 * report.manifest.metrics[key]:.1f}",
            f"{100 * before[key]:.1f}" if before else "",
        )
        for key, title in TITLES.items()
        if key in report.manifest.metrics
    ]


def _curve(losses: list[float]) -> str:
    figure = Figure(figsize=(5.2, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(1, len(losses) + 1), losses, color=GOOD, alpha=0.25, linewidth=0.8)
    window = max(1, len(losses) // 40)
    smooth = np.convolve(losses, np.ones(window) / window, "valid")
    axes.plot(np.arange(window, len(losses) + 1), smooth, color=GOOD, linewidth=1.8)
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    return _embed(figure)


def _histogram(report: Report) -> str:
    groups = {"held-out good parts": (_normal_scores(report), GOOD, 0.75)}
    if report.test is not None and not report.comparison:
        test = report.test
        groups["good parts, test"] = (test.scores[~test.anomalous], "#7fb6de", 0.6)
    if report.test is not None:
        groups["defective parts"] = (report.test.scores[report.test.anomalous], BAD, 0.6)
    groups = {name: group for name, group in groups.items() if len(group[0])}
    figure = Figure(figsize=(5.2, 2.8), layout="constrained")
    axes = figure.subplots()
    everything = np.concatenate([scores for scores, _, _ in groups.values()])
    bins = np.linspace(everything.min(), everything.max() + 1e-6, 40)
    for name, (scores, colour, alpha) in groups.items():
        weights = np.full(len(scores), 100 / len(scores))
        axes.hist(scores, bins, weights=weights, color=colour, alpha=alpha, label=name)
    lines = report.manifest.thresholds
    for value, name, style in ((lines.review, "review", "--"), (lines.ng, "ng", "-")):
        axes.axvline(value, color=LINE, linestyle=style, linewidth=1.2, label=f"{name} {value:.1f}")
    axes.set(xlabel="raw score", ylabel="% of group")
    axes.legend(fontsize=7, frameon=False)
    return _embed(figure)


def _changes(comparison: Comparison) -> str:
    """Candidate - champion with its interval; zero is where the two are alike."""
    changes = comparison.changes[::-1]
    figure = Figure(figsize=(10.4, 0.8 + 0.4 * len(changes)), layout="constrained")
    axes = figure.subplots()
    for row, change in enumerate(changes):
        colour = BAD if change.worse else GOOD if change.better else LINE
        axes.plot([100 * change.low, 100 * change.high], [row, row], color=colour, linewidth=3)
        axes.plot(100 * change.difference, row, "o", color=colour, markersize=7)
    axes.axvline(0, color=LINE, linewidth=1)
    axes.set_yticks(range(len(changes)), [TITLES[change.metric] for change in changes])
    axes.set(xlabel="candidate - champion, points", ylim=(-0.6, len(changes) - 0.4))
    return _embed(figure)


def _normal_scores(report: Report) -> NDArray[Any]:
    scored = score_features(report.scorer, report.cache, report.normals)
    return np.array([score for _, score, _ in scored])


def _examples(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled rows of (caption, picture): the parts that say most about the model."""
    evaluation = report.test
    if evaluation is None or not evaluation.anomalous.any():
        normals = list(report.normals)[:EXAMPLES]
        return [("Held-out good parts", _pictures(report, normals))]
    order = np.argsort(evaluation.scores, kind="stable")
    bad = [evaluation.files[i] for i in order if evaluation.files[i].verdict == "ng"]
    good = [evaluation.files[i] for i in order if evaluation.files[i].verdict == "ok"]
    rows = {
        "Defective parts with the highest scores": bad[::-1][:EXAMPLES],
        "Defective parts with the lowest scores: what it misses": bad[:EXAMPLES],
        "Good parts with the highest scores: what it refuses wrongly": good[::-1][:EXAMPLES],
    }
    return [(title, _pictures(report, files)) for title, files in rows.items() if files]


def _pictures(report: Report, files: list[LabelledFile]) -> list[tuple[str, str]]:
    lines = report.manifest.thresholds
    pictures = []
    for file, score, heatmap in score_features(report.scorer, report.cache, files):
        caption = f"{file.defect_class or 'good'} · {score:.2f} · {lines.verdict(score)}"
        pictures.append((caption, _overlay(report, file, heatmap)))
    return pictures


def _overlay(report: Report, file: LabelledFile, heatmap: NDArray[np.float32]) -> str:
    image: Pixels = report.cache.source.read(file.image)
    quantiles = report.manifest.calibration.quantiles
    figure = Figure(figsize=(4.2, 2.15), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image)
    if file.mask:
        mask = network_mask(file.mask, report.manifest.input)
        left.contour(mask, levels=[0.5], colors=["#00e0a0"], linewidths=0.9)
    right.imshow(image)
    right.imshow(
        heatmap, cmap="inferno", alpha=0.6, vmin=quantiles[0] * 0.5, vmax=quantiles[-1] * 1.3
    )
    for axes in (left, right):
        axes.set_axis_off()
    return _embed(figure, 80)


def _embed(figure: Figure, dpi: int = 110) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
