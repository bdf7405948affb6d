"""Distance to the nearest feature vector of good parts: the training-free peer.

With random vectors it is the plain k-NN (SPADE, Cohen & Hoshen 2020); with features averaged over
their neighbourhood, as some views are, and a greedy coreset it is PatchCore's (Roth et al., arXiv
2106.08265), whose re-weighting of the image score by the neighbour's own neighbours is left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Of the squared distance, for each channel, below which float32 cannot tell it from 0.
_SMALLEST = 4e-6


@dataclass(frozen=True)
class MemoryBankConfig:
    """`size` vectors of `channels`."""

    channels: int
    size: int


class MemoryBank(nn.Module):
    """Standardised features (B, C, H, W) to distances (B, H, W)."""

    def __init__(self, config: MemoryBankConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bank_NC", torch.zeros(config.size, config.channels))
        self.bank_NC: Tensor

    def remember(self, vectors_NC: Tensor) -> None:
        """Fill the bank, in half precision's digits: files keep it so, in half the space."""
        self.bank_NC.copy_(vectors_NC.half())

    def forward(self, features_BCHW: Tensor) -> Tensor:
        tokens_BLC = features_BCHW.flatten(2).transpose(1, 2)
        # |a - b|² = |a|² - 2ab + |b|²: one matrix product, whatever the runtime.
        squares_N = self.bank_NC.square().sum(1)
        square_TN = torch.addmm(squares_N, tokens_BLC.flatten(0, 1), self.bank_NC.T, alpha=-2)
        nearest_BL = square_TN.amin(1).view(tokens_BLC.shape[:2]) + tokens_BLC.square().sum(2)
        least = _SMALLEST * self.config.channels
        distance_BL = nearest_BL.clamp_min(least).sqrt()
        distance_BHW: Tensor = distance_BL.unflatten(1, features_BCHW.shape[2:])
        return distance_BHW
