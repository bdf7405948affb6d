"""How the features of an image lie in one vector: several maps, one after the other.

A network sees stages of different resolutions. Maps of each are kept at their own resolution;
flattened and joined they are one tensor to compute, keep and pass on.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.networks.warp import TRANSFORM, Extent

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class FeatureLayout:
    """The shapes (C, H, W) of the maps. The last map's grid need not be that of the first.

    Where images are aligned, maps are of the aligned frame, whose half width and height `extent`
    has, and the image's transform stands after them (see `training.networks.warp`).
    """

    shapes: tuple[Shape, ...]
    extent: Extent | None = None

    @property
    def size(self) -> int:
        """Values of one image."""
        return self._mapped + (TRANSFORM if self.extent else 0)

    @property
    def _mapped(self) -> int:
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

    def transform(self, features_BD: Tensor) -> Tensor:
        """Where each aligned image lay (B, 4); nothing (B, 0) where none is aligned."""
        return features_BD[:, self._mapped :]

    @staticmethod
    def join(maps: list[Tensor]) -> Tensor:
        """Flat features (B, D) of maps (B, C, H, W): the inverse of `split`."""
        return torch.cat([each.flatten(1) for each in maps], 1)
