"""Distance to the nearest feature vector of good parts: the training-free peer.

With random vectors it is the plain k-NN (SPADE, Cohen & Hoshen 2020); with features averaged over
their neighbourhood, as some views are, and a greedy coreset it is PatchCore's (Roth et al., arXiv
2106.08265), whose re-weighting of the image score by the neighbour's own neighbours is left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        # |a - b|² = |a|² - 2ab + |b|²: one convolution of 1 × 1, whatever the runtime.
        squares_N = self.bank_NC.square().sum(1)
        weight_NC11 = -2 * self.bank_NC[..., None, None]
        square_BNHW = F.conv2d(features_BCHW, weight_NC11, squares_N)
        square_BHW = square_BNHW.amin(1) + features_BCHW.square().sum(1)
        distance_BHW: Tensor = square_BHW.clamp_min(_SMALLEST * self.config.channels).sqrt()
        return distance_BHW
