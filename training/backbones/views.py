"""Views: the maps of features that branches see, each of some stages on a grid of its own.

Stages of very different resolution drown each other in one map: among 496 channels of
EfficientNet-Lite0, 320 belong to its coarsest stage. So neighbouring stages make a view, whose grid
suits them; a view of all stages on one grid is what ADTR's paper uses.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from models.backbone import Stage

# `all` stages on the grid of the settings, the `last` one alone, or `pixels` without a backbone;
# of neighbouring stages the finest, middle and coarsest ones.
ViewName = Literal["all", "last", "pixels", "fine", "middle", "deep"]

_NEIGHBOURING: tuple[ViewName, ...] = ("fine", "middle", "deep")
FINEST_CELL = 8  # pixels: a finer cell holds no more than noise, and costs four times as much


@dataclass(frozen=True)
class FeatureView:
    """A map of `stages`, in cells of `cell` × `cell` pixels.

    `smooth` is the side of the square that each stage is averaged over, in its own cells.
    """

    name: ViewName
    stages: tuple[Stage, ...]
    cell: int
    smooth: int = 1

    @property
    def channels(self) -> int:
        """Of all its stages."""
        return sum(stage.channels for stage in self.stages)


def view_of(name: ViewName, stages: tuple[Stage, ...], cell: int) -> FeatureView:
    """The view of this name; `cell` is what `all` and `last` are resized to."""
    if name == "all":
        return FeatureView(name, stages, cell)
    if name == "last":
        return FeatureView(name, stages[-1:], cell)
    return neighbouring(stages)[name]


def neighbouring(stages: tuple[Stage, ...]) -> dict[str, FeatureView]:
    """Three views of neighbouring stages, from the finest to the coarsest.

    Of strides 4, 8, 16 and 32 these are `fine` (4, 8), `middle` (8, 16) and `deep` (16, 32). A
    stride of 2 shows pixels rather than what they make, and is left out where there are enough
    others. Of fewer stages the last one stands alone; of a transformer, whose stages all have one
    stride, they are its first, middle and last blocks. Of fused backbones each view has what it has
    of either.
    """
    by_backbone: dict[str, list[Stage]] = {}
    for stage in stages:
        by_backbone.setdefault(stage.backbone, []).append(stage)
    chosen = zip(*(_pairs(each) for each in by_backbone.values()), strict=True)
    views: dict[str, FeatureView] = {}
    for name, pairs in zip(_NEIGHBOURING, chosen, strict=True):
        seen = tuple(itertools.chain.from_iterable(pairs))
        views[name] = FeatureView(name, seen, _cell(seen), smooth=3)
    return views


def _pairs(stages: Sequence[Stage]) -> tuple[tuple[Stage, ...], ...]:
    """The finest, middle and coarsest neighbours of one backbone's stages."""
    useful = [stage for stage in stages if stage.stride >= 4]
    ordered = sorted(useful if len(useful) >= 3 else stages, key=lambda stage: stage.stride)
    pairs = [tuple(ordered[i : i + 2]) for i in range(len(ordered) - 1)]
    if len(pairs) < 3:
        pairs.append((ordered[-1],))
    while len(pairs) < 3:
        pairs.insert(0, (ordered[0],))
    return pairs[0], pairs[len(pairs) // 2], pairs[-1]


def _cell(stages: tuple[Stage, ...]) -> int:
    finest = min(stage.stride for stage in stages)
    return finest * math.ceil(FINEST_CELL / finest)
