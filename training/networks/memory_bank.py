"""Distance to the nearest feature vector of good parts: the training-free peer.

With random vectors it is the plain k-NN (SPADE, Cohen & Hoshen 2020); with features averaged over
their neighbourhood, as some views are, and a greedy coreset it is PatchCore's (Roth et al., arXiv
2106.08265), whose re-weighting of the image score by the neighbour's own neighbours is left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of the mean square of the bank's vectors: nearer squares float32 cannot tell from 0.
SMALLEST = 4e-6
AT_A_TIME = 256  # vectors


@dataclass(frozen=True)
class MemoryBankConfig:
    """`size` vectors of `channels`."""

    channels: int
    size: int


class MemoryBank(nn.Module):
    """Features (B, C, H, W) to distances (B, H, W) from the nearest vector of the bank.

    All are taken from the bank's mean, which changes no distance: features that are not
    standardised can lie far from 0, and float32 would lose small differences between large squares.
    """

    def __init__(self, config: MemoryBankConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bank_NC", torch.zeros(config.size, config.channels))
        self.register_buffer("mean_C", torch.zeros(config.channels))
        self.bank_NC: Tensor
        self.mean_C: Tensor

    def remember(self, vectors_NC: Tensor) -> None:
        """Fill the bank, in half precision's digits: files keep it so, in half the space."""
        self.mean_C.copy_(vectors_NC.mean(0).half())
        self.bank_NC.copy_((vectors_NC - self.mean_C).half())

    @property
    def vectors(self) -> Tensor:
        """What it remembers (N, C)."""
        return self.bank_NC + self.mean_C

    def forward(self, features_BCHW: Tensor) -> Tensor:
        features_BCHW = features_BCHW - self.mean_C.view(1, -1, 1, 1)
        # |a - b|² = |a|² - 2ab + |b|²: a channel of ones makes the last one part of the product.
        squares_1N = self.bank_NC.square().sum(1).unsqueeze(0)
        weight_CN = torch.cat([-2 * self.bank_NC.T, squares_1N])
        tokens_BLC = F.pad(features_BCHW, (0, 0, 0, 0, 0, 1), value=1.0).flatten(2).transpose(1, 2)
        # Some vectors at a time: all at once leave the processor's cache, and take twice as long.
        near_BLS = [
            (tokens_BLC @ weight_CS).amin(2, keepdim=True)
            for weight_CS in weight_CN.split(AT_A_TIME, 1)
        ]
        nearest_BHW = torch.cat(near_BLS, 2).amin(2).unflatten(1, features_BCHW.shape[2:])
        square_BHW = nearest_BHW + features_BCHW.square().sum(1)
        distance_BHW: Tensor = square_BHW.clamp_min(SMALLEST * squares_1N.mean()).sqrt()
        return distance_BHW
