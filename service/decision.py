"""From a score and a heatmap to a verdict: what thresholds and a recipe's settings make of them."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from models.bundle import Thresholds, Verdict
from service.engine import Floats
from service.recipe_settings import RecipeSettings
from service.regions import Region, find_regions

_WORST: tuple[Verdict, ...] = ("error", "ng", "review", "ok")


def worst(verdicts: Collection[str]) -> Verdict:
    """The verdict of several views of one part: its worst view's. At least one is given."""
    return next(verdict for verdict in _WORST if verdict in verdicts)


@dataclass(frozen=True)
class Decision:
    """`score` is that of the area that counts; `regions` are those that count."""

    score: float
    verdict: Verdict
    regions: list[Region]


def decide(
    score: float,
    heatmap_hw: Floats,
    thresholds: Thresholds,
    settings: RecipeSettings,
    *,
    width: int,
    height: int,
) -> Decision:
    """What an image of `width` × `height` is, by the raw score and heatmap of its model.

    Where only a part of it counts, the score falls as the peak of the heatmap does. A part that
    reaches a line passes all the same where none of its regions is as large as one must be. A part
    that passes has no regions.
    """
    peak = float(heatmap_hw.max())
    area = settings.area(*heatmap_hw.shape)
    if area is not None:
        heatmap_hw = np.where(area, heatmap_hw, -np.inf)
        counted = float(heatmap_hw.max())
        if counted < peak:
            score *= max(counted, 0.0) / peak
            peak = counted
    verdict = thresholds.verdict(score)
    if verdict in ("ok", "error"):
        return Decision(score, verdict, [])
    # Heatmap and score are smoothed differently: one can reach the line without the other.
    line = thresholds.review * min(1.0, peak / score) if score > 0 else thresholds.review
    regions = find_regions(heatmap_hw, min(line, peak), width=width, height=height)
    if settings.mm_per_pixel:
        regions = [region.in_millimetres(settings.mm_per_pixel) for region in regions]
    if settings.smallest_px:
        regions = [region for region in regions if region.area >= settings.smallest_px]
        if not regions:
            return Decision(score, "ok", [])
    return Decision(score, verdict, regions)
