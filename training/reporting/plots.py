"""The pictures of reports and benchmark pages, as PNG inside of the page."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.image import Mask, Pixels
from training.evaluation.comparison import Comparison
from training.evaluation.sensitivity import Sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD, BAD, LINE = "#2a78b8", "#c8501e", "#555555"
# Distinct also without colour vision (Okabe & Ito).
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c8c")
TITLES = {
    "image_auroc": "Image AUROC", "image_ap": "Image AP", "image_f1_max": "Image F1-max",
    "pixel_auroc": "Pixel AUROC", "pixel_ap": "Pixel AP", "pixel_f1_max": "Pixel F1-max",
    "pixel_aupro": "Pixel AUPRO",
}  # fmt: skip

Curve = tuple[NDArray[Any], NDArray[Any]]


def loss_curve(losses: Sequence[float]) -> str:
    """Loss by step, faint, and its moving mean."""
    figure, axes = _plot()
    axes.plot(np.arange(1, len(losses) + 1), losses, color=GOOD, alpha=0.25, linewidth=0.8)
    window = max(1, len(losses) // 40)
    smooth = np.convolve(losses, np.ones(window) / window, "valid")
    axes.plot(np.arange(window, len(losses) + 1), smooth, color=GOOD, linewidth=1.8)
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    return embed(figure)


def held_out_error(errors: Mapping[int, float]) -> str:
    """Error on labels that were not learned by step, and where it is lowest."""
    figure, axes = _plot()
    axes.plot(list(errors), list(errors.values()), "o-", color=BAD, linewidth=1.8, markersize=4)
    best = min(errors, key=lambda step: (errors[step], -step))
    axes.axvline(best, color=LINE, linestyle="--", linewidth=1.2, label=f"chosen: {best} steps")
    axes.set(xlabel="step", ylabel="error, 1 at first", ylim=(0, None))
    _legend(axes)
    return embed(figure)


def histogram(
    groups: Mapping[str, tuple[NDArray[Any], str]], lines: Mapping[str, float] | None = None
) -> str:
    """Scores of named groups, each with its colour, as percent of the group; lines at scores."""
    groups = {name: group for name, group in groups.items() if len(group[0])}
    figure, axes = _plot()
    everything = np.concatenate([scores for scores, _ in groups.values()])
    bins = np.linspace(everything.min(), everything.max() + 1e-6, 40).tolist()
    for name, (scores, colour) in groups.items():
        weights = np.full(len(scores), 100 / len(scores))
        axes.hist(scores, bins, weights=weights, color=colour, alpha=0.65, label=name)
    for (name, value), style in zip((lines or {}).items(), ("--", "-"), strict=False):
        axes.axvline(value, color=LINE, linestyle=style, linewidth=1.2, label=f"{name} {value:.1f}")
    axes.set(xlabel="raw score", ylabel="% of group")
    _legend(axes)
    return embed(figure)


def curves(named: Mapping[str, Curve], x: str, y: str, limit: float = 1.0) -> str:
    """Curves by name, x up to `limit`."""
    figure, axes = _plot((3.4, 2.9))
    for number, (name, (along, up)) in enumerate(named.items()):
        axes.plot(along, up, color=PALETTE[number % len(PALETTE)], linewidth=1.6, label=name)
    axes.set(xlabel=x, ylabel=y, xlim=(0, limit), ylim=(0, 1.02))
    if len(named) > 1:
        _legend(axes, columns=2)
    return embed(figure)


def sensitivity(spots: Sensitivity) -> str:
    """Share of drawn spots that are found, by their diameter."""
    figure, axes = _plot()
    axes.plot(spots.sides, np.multiply(spots.review, 100), "o-", color=GOOD, label="review or ng")
    axes.plot(spots.sides, np.multiply(spots.ng, 100), "s--", color=BAD, label="ng")
    axes.axhline(90, color=LINE, linewidth=0.8, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_xticks(spots.sides, [f"{side:.0f}" for side in spots.sides])
    axes.minorticks_off()
    axes.set(xlabel="diameter in pixels of the camera's image", ylabel="% found", ylim=(-3, 103))
    _legend(axes)
    return embed(figure)


def inputs(points: Sequence[tuple[str, float, float]]) -> str:
    """Share of drawn spots found against milliseconds an image, by the input's size."""
    figure, axes = _plot()
    times, found = [point[1] for point in points], [100 * point[2] for point in points]
    axes.plot(times, found, "o-", color=GOOD)
    for (name, *_), x, y in zip(points, times, found, strict=True):
        axes.annotate(name, (x, y), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.set(
        xlabel="milliseconds an image", ylabel="% of spots found",
        xlim=(0, 1.15 * max(times)), ylim=(0, 112),
    )  # fmt: skip
    return embed(figure)


def strips(groups: Mapping[str, NDArray[Any]], lines: Mapping[str, float]) -> str:
    """Every score of every group, a row each; lines at scores."""
    figure, axes = _plot((10.4, 1.0 + 0.24 * len(groups)))
    for row, scores in enumerate(groups.values()):
        axes.plot([scores.min(), scores.max()], [row, row], color=GOOD, linewidth=1)
        axes.plot(scores, np.full(len(scores), row), "o", color=GOOD, markersize=4.5, alpha=0.7)
    for (name, value), style in zip(lines.items(), ("--", "-"), strict=False):
        axes.axvline(value, color=LINE, linestyle=style, linewidth=1.2, label=f"{name} {value:.1f}")
    axes.set_yticks(range(len(groups)), list(groups), fontsize=7)
    axes.set(xlabel="raw score", ylim=(len(groups) - 0.5, -0.5))
    _legend(axes)
    return embed(figure)


def changes(comparison: Comparison) -> str:
    """Candidate - champion with its interval; zero is where the two are alike."""
    shown = comparison.changes[::-1]
    figure, axes = _plot((10.4, 0.8 + 0.4 * len(shown)))
    for row, change in enumerate(shown):
        colour = BAD if change.worse else GOOD if change.better else LINE
        axes.plot([100 * change.low, 100 * change.high], [row, row], color=colour, linewidth=3)
        axes.plot(100 * change.difference, row, "o", color=colour, markersize=7)
    axes.axvline(0, color=LINE, linewidth=1)
    axes.set_yticks(range(len(shown)), [TITLES[change.metric] for change in shown])
    axes.set(xlabel="candidate - champion, points", ylim=(-0.6, len(shown) - 0.4))
    return embed(figure)


def bands(
    x: Sequence[float], series: Mapping[str, tuple[Sequence[Sequence[float]], str]],
    across: str, up: str, *, logarithmic: bool = False,
) -> str:  # fmt: skip
    """Medians over runs at each x, in a band from the least to the largest.

    `series` holds for each name the runs' values at each x, and a colour.
    """
    figure, axes = _plot((7.0, 3.4))
    for name, (values, colour) in series.items():
        axes.fill_between(
            x, [min(runs) for runs in values], [max(runs) for runs in values],
            color=colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
        axes.plot(x, [float(np.median(runs)) for runs in values], "o-", color=colour, label=name)
    if logarithmic:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(list(x), [f"{value:g}" for value in x])
    axes.set(xlabel=across, ylabel=up, ylim=(0, None))
    _legend(axes)
    return embed(figure)


def overlay(
    image: Pixels, heatmap: NDArray[np.float32], mask: Mask | None, low: float, high: float
) -> str:
    """A part, its marked defect outlined, beside the heatmap over it, from `low` to `high`."""
    figure = _figure((4.2, 2.15))
    left, right = figure.subplots(1, 2)
    left.imshow(image)
    if mask is not None and mask.any():
        left.contour(mask, levels=[0.5], colors=["#00e0a0"], linewidths=0.9)
    right.imshow(image)
    right.imshow(heatmap, cmap="inferno", alpha=0.6, vmin=low, vmax=high)
    for axes in (left, right):
        axes.set_axis_off()
    return embed(figure, 80)


def embed(figure: "Figure", dpi: int = 110) -> str:
    """A figure as a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _legend(axes: "Axes", columns: int = 4) -> None:
    # Over the plot, where it hides no data; looking for the best place within can take seconds.
    at: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    axes.legend(fontsize=7, frameon=False, ncols=columns, **at)


def _figure(size: tuple[float, float]) -> "Figure":
    # Imported here: it takes half a second, which commands that draw nothing need not wait.
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _plot(size: tuple[float, float] = (5.2, 2.8)) -> tuple["Figure", "Axes"]:
    figure = _figure(size)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
