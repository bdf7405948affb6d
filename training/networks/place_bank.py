"""Distance to the nearest good part at the same place.

A bank of normal references beside the reconstruction, as in MaskAD: what a network has learned to
rebuild badly may still be usual, and what it copies may still be rare. Searching each place's own
references costs a hundredth of a bank of all places, and on whitened features finds more.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.networks.places import by_cell, by_place

# Of the squared distance, for each channel, below which float32 cannot tell it from 0.
_SMALLEST = 4e-6


@dataclass(frozen=True)
class PlaceBankConfig:
    """`size` vectors of `channels` at each of `places` (rows, columns)."""

    channels: int
    places: tuple[int, int]
    size: int


class PlaceBank(nn.Module):
    """Features (B, C, H, W) to distances (B, H, W)."""

    def __init__(self, config: PlaceBankConfig) -> None:
        super().__init__()
        self.config = config
        places = config.places[0] * config.places[1]
        self.register_buffer("bank_PMC", torch.zeros(places, config.size, config.channels))
        self.bank_PMC: Tensor

    def forward(self, features_BCHW: Tensor) -> Tensor:
        tokens_PNC = by_place(features_BCHW, self.config.places)
        # |a - b|² = |a|² - 2ab + |b|²: one matrix product, whatever the runtime.
        product_PNM = tokens_PNC @ self.bank_PMC.transpose(1, 2)
        square_PNM = self.bank_PMC.square().sum(2).unsqueeze(1) - 2 * product_PNM
        nearest_PN = square_PNM.amin(2) + tokens_PNC.square().sum(2)
        distance_PNK = nearest_PN.clamp_min(_SMALLEST * self.config.channels).sqrt().unsqueeze(2)
        return by_cell(distance_PNK, self.config.places, features_BCHW.shape[2:]).squeeze(1)
