"""How the features of an image lie in one vector: several maps, one after the other.

A network sees stages of different resolutions. Maps of each are kept at their own resolution;
flattened and joined they are one tensor to compute, keep and pass on.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class FeatureLayout:
    """The shapes (C, H, W) of the maps. The last map's grid need not be that of the first."""

    shapes: tuple[Shape, ...]

    @property
    def size(self) -> int:
        """Values of one image."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the finest map."""
        return max((height, width) for _, height, width in self.shapes)

    def split(self, features_BD: Tensor) -> list[Tensor]:
        """The maps (B, C, H, W) of flat features."""
        ends = list(itertools.accumulate(math.prod(shape) for shape in self.shapes))
        starts = [0, *ends[:-1]]
        return [
            features_BD[:, start:end].unflatten(1, shape)
            for start, end, shape in zip(starts, ends, self.shapes, strict=True)
        ]

    def map(self, features_BD: Tensor, view: int) -> Tensor:
        """The map (B, C, H, W) with this number."""
        return self.split(features_BD)[view]

    @staticmethod
    def join(maps: list[Tensor]) -> Tensor:
        """Flat features (B, D) of maps (B, C, H, W): the inverse of `split`."""
        return torch.cat([each.flatten(1) for each in maps], 1)
