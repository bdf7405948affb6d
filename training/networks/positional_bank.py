"""Distance to the nearest good part at the same position.

A bank of normal references beside the reconstruction, as in MaskAD: what a network has learned to
rebuild badly may still be usual, and what it copies may still be rare. Searching each position's
own references costs a hundredth of a bank of all positions, and on whitened features finds more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.networks.positions import by_cell, by_position

# Of the squared distance, for each channel, below which float32 cannot tell it from 0.
SMALLEST = 4e-6


@dataclass(frozen=True)
class PositionalBankConfig:
    """`size` vectors of `channels` at each of `positions` (rows, columns)."""

    channels: int
    positions: tuple[int, int]
    size: int


class PositionalBank(nn.Module):
    """Features (B, C, H, W) to distances (B, H, W)."""

    def __init__(self, config: PositionalBankConfig) -> None:
        super().__init__()
        self.config = config
        positions = config.positions[0] * config.positions[1]
        self.register_buffer("bank_PMC", torch.zeros(positions, config.size, config.channels))
        self.bank_PMC: Tensor

    def remember(self, vectors_PMC: Tensor) -> None:
        """Fill the bank, in half precision's digits: files keep it so, in half the space."""
        self.bank_PMC.copy_(vectors_PMC.half())

    def forward(self, features_BCHW: Tensor) -> Tensor:
        tokens_PNC = by_position(features_BCHW, self.config.positions)
        return self.nearest(tokens_PNC, features_BCHW.shape[2:])

    def nearest(self, tokens_PNC: Tensor, grid: Sequence[int]) -> Tensor:
        """The same of features by position (P, N, C), on a grid (H, W)."""
        # |a - b|² = |a|² - 2ab + |b|²: one matrix product, whatever the runtime.
        squares_P1M = self.bank_PMC.square().sum(2).unsqueeze(1)
        square_PNM = torch.baddbmm(squares_P1M, tokens_PNC, self.bank_PMC.mT, alpha=-2)
        nearest_PN = square_PNM.amin(2) + tokens_PNC.square().sum(2)
        distance_PNK = nearest_PN.clamp_min(SMALLEST * self.config.channels).sqrt().unsqueeze(2)
        return by_cell(distance_PNK, self.config.positions, grid).squeeze(1)
