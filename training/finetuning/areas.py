"""Where a recipe counts defects, as people drew it: thresholds are of it alone.

It stays out of the bundle, which inspects as much of the image as its champion did: people change
areas at any time, and where they widen one, defects must be seen there at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from models.errors import ImageError
from models.image import decode, read_mask, resize_mask
from training.backbones.features import FeatureCache
from training.data.folders import LabelledFile
from training.errors import DatasetError
from training.fitting.region_of_interest import RegionOfInterest
from training.networks.scorer import Scorer


def read_areas(path: Path, cache: FeatureCache, part: LabelledFile) -> Tensor:
    """1 on cells (H, W) of the finest map where defects count, by a mask of the whole image in any
    resolution. Of aligned parts all are taken to lie as `part` does.

    Raises DatasetError where the file is no mask, or nothing counts.
    """
    try:
        mask = read_mask(path.read_bytes())
    except (OSError, ImageError) as error:
        reason = error.message if isinstance(error, ImageError) else error.strerror
        raise DatasetError(
            f"The areas {path} cannot be read: {reason}",
            remedy="Give an 8-bit PNG, white where defects count and black elsewhere.",
        ) from error
    source = cache.source
    height, width = decode(part.image.read_bytes(), source.pixels).shape[:2]
    of_image = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    region = RegionOfInterest(cache.to_aligned(part.sha256, resize_mask(of_image, source.size)))
    cells_HW = region.on_grid(source.layout.grid)
    if not bool(cells_HW.any()):
        raise DatasetError(
            f"The areas {path} leave nothing to inspect.",
            remedy="Mark where defects count in white.",
        )
    return cells_HW


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
