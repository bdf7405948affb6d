"""Where a recipe counts defects, as people drew it: thresholds are of it alone.

It stays out of the bundle, which inspects as much of the image as its champion did: people change
areas at any time, and where they widen one, defects must be seen there at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from training.backbones.features import FeatureCache
from training.data.folders import LabelledFile
from training.fitting.region_of_interest import read_region
from training.networks.scorer import Scorer


def read_areas(path: Path, cache: FeatureCache, part: LabelledFile) -> Tensor:
    """1 on cells (H, W) of the finest map where defects count, by a mask of the whole image in any
    resolution. Of aligned parts all are taken to lie as `part` does.

    Raises DatasetError where the file is no mask, or nothing counts.
    """
    region = read_region(path, cache, part, any_size=True)
    return region.on_grid(cache.layout.grid)


@contextmanager
def counted(scorer: Scorer, areas_HW: Tensor | None) -> Iterator[None]:
    """Let nothing outside of the areas count meanwhile; None counts all that is inspected."""
    inspected_HW = scorer.roi_HW.clone()
    if areas_HW is not None:
        scorer.roi_HW.mul_(areas_HW)
    try:
        yield
    finally:
        scorer.roi_HW.copy_(inspected_HW)
