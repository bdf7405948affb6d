"""Distance to the nearest good part at the same place.

A bank of normal references beside the reconstruction, as in MaskAD: what a network has learned to
rebuild badly may still be usual, and what it copies may still be rare. Searching each place's own
references costs a hundredth of a bank of all places, and on whitened features finds more.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Of the squared distance, below which float32 cannot tell it from 0.
_SMALLEST = 1e-6


@dataclass(frozen=True)
class PlaceBankConfig:
    """`size` good parts of `channels` at each of `places`, which are height × width."""

    channels: int
    places: int
    size: int


class PlaceBank(nn.Module):
    """Features (B, C, H, W) to distances (B, H, W)."""

    def __init__(self, config: PlaceBankConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bank_LNC", torch.zeros(config.places, config.size, config.channels))
        self.bank_LNC: Tensor

    def forward(self, features_BCHW: Tensor) -> Tensor:
        tokens_LBC = features_BCHW.flatten(2).permute(2, 0, 1)
        # |a - b|² = |a|² - 2ab + |b|²: one matrix product, whatever the runtime.
        product_LBN = tokens_LBC @ self.bank_LNC.transpose(1, 2)
        square_LBN = self.bank_LNC.square().sum(2).unsqueeze(1) - 2 * product_LBN
        nearest_LB = square_LBN.amin(2) + tokens_LBC.square().sum(2)
        return nearest_LB.clamp_min(_SMALLEST).sqrt().T.unflatten(1, features_BCHW.shape[2:])
