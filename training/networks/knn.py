"""The k-nearest-neighbour scorer: the training-free peer that a trained network must beat.

A bank of feature vectors of good parts; a cell's distance is that to its nearest neighbour
(SPADE, PatchCore, here with a random subset for the bank).
"""

import torch
from torch import Tensor, nn

from training.networks.scorer import HeatmapScore, Standardise


class NearestNeighbour(nn.Module):
    """Raw features (B, C, H, W) to score (B) and heatmap (B, h, w); `bank_NC` is standardised."""

    def __init__(self, standardise: Standardise, bank_NC: Tensor, score: HeatmapScore) -> None:
        super().__init__()
        self.standardise = standardise
        self.register_buffer("bank", bank_NC)
        self.bank: Tensor
        self.score = score

    def forward(self, features_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        tokens_BLC = self.standardise(features_BCHW).flatten(2).transpose(1, 2)
        distance_BL = torch.cdist(tokens_BLC, self.bank.unsqueeze(0)).amin(dim=2)
        return self.score(distance_BL.unflatten(1, features_BCHW.shape[2:]))
