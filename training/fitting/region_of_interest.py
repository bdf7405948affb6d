"""The part of an image that is inspected: a mask, given once for all parts of a recipe."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.errors import ImageError
from models.image import Mask, decode, read_mask, resize_mask
from training.backbones.features import FeatureCache
from training.data.folders import LabelledFile
from training.errors import DatasetError


@dataclass(frozen=True)
class RegionOfInterest:
    """`pixels` (H, W) of the network's input that are inspected; where images are aligned, of the
    aligned one."""

    pixels: Mask

    @property
    def share(self) -> float:
        """Of the image that is inspected."""
        return float(self.pixels.mean())

    def on_grid(self, grid: tuple[int, int]) -> Tensor:
        """1 on cells (H, W) that are inspected by half at least, 0 on the others."""
        height, width = self.pixels.shape
        blocks = self.pixels.reshape(grid[0], height // grid[0], grid[1], width // grid[1])
        return torch.from_numpy((blocks.mean((1, 3)) >= 0.5).astype(np.float32))


def read_region(
    path: Path, cache: FeatureCache, part: LabelledFile, *, any_size: bool = False
) -> RegionOfInterest:
    """Read a mask, white where `part` is inspected. It holds for all parts that lie as this one
    does, and for all that are aligned. With `any_size`, it is of the whole image in any resolution.

    Raises DatasetError where it is no mask, of another size than the part's image, or leaves
    nothing to inspect.
    """
    try:
        mask = read_mask(path.read_bytes())
    except (OSError, ImageError) as error:
        reason = error.message if isinstance(error, ImageError) else error.strerror
        raise DatasetError(
            f"The mask {path} cannot be read: {reason}",
            remedy="Give an 8-bit PNG, white where parts are inspected and black elsewhere.",
        ) from error
    source = cache.source
    height, width = decode(part.image.read_bytes(), source.pixels).shape[:2]
    if any_size:
        mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    elif mask.shape != (height, width):
        raise DatasetError(
            f"The mask {path} is {mask.shape[1]}×{mask.shape[0]} pixels, the parts' images are "
            f"{width}×{height}.",
            remedy="Draw it on an image of a part.",
        )
    region = RegionOfInterest(cache.to_aligned(part.sha256, resize_mask(mask, source.size)))
    if not bool(region.on_grid(source.layout.grid).any()):
        raise DatasetError(
            f"The mask {path} leaves nothing to inspect.",
            remedy="Mark what is inspected in white.",
        )
    return region
