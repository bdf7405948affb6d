"""From a map of distances on the grid to a heatmap at the image's size and a score."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.adtr import Adtr

STD_FLOOR = 0.1  # of the mean deviation over all channels


class HeatmapScore(nn.Module):
    """Distances (B, H, W) to score (B) and heatmap (B, h, w), both from the upsampled map.

    The heatmap is smoothed. The score is the largest mean over a `pool` × `pool` window, moved
    by a quarter of its side: smoothed by that alone, since a small defect does not bear twice.
    """

    def __init__(self, stride: int, *, sigma: float = 4.0, pool: int = 16) -> None:
        super().__init__()
        self.stride = stride
        self.pool = pool
        self.radius = math.ceil(3 * sigma)
        offsets = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        self.register_buffer("kernel", kernel / kernel.sum())
        self.kernel: Tensor

    def forward(self, distance_BHW: Tensor) -> tuple[Tensor, Tensor]:
        coarse = distance_BHW.unsqueeze(1)
        fine = F.interpolate(coarse, scale_factor=self.stride, mode="bilinear", align_corners=False)
        pooled = F.avg_pool2d(fine, self.pool, stride=self.pool // 4)
        padded = F.pad(fine, (self.radius,) * 4, mode="replicate")
        across = F.conv2d(padded, self.kernel.view(1, 1, 1, -1))
        heatmap = F.conv2d(across, self.kernel.view(1, 1, -1, 1))
        return pooled.amax(dim=(1, 2, 3)), heatmap.squeeze(1)


class Standardise(nn.Module):
    """Features to zero mean and unit deviation per channel, as seen on good parts."""

    def __init__(self, mean_C: Tensor, std_C: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean_C.view(1, -1, 1, 1))
        # A channel that hardly varies on good parts must not outshout all others when it does.
        floor = STD_FLOOR * std_C.mean() + 1e-6
        self.register_buffer("std", std_C.clamp_min(floor).view(1, -1, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return (features_BCHW - self.mean) / self.std


class AdtrScorer(nn.Module):
    """Raw features (B, C, H, W) to score (B) and heatmap (B, h, w): what a bundle holds."""

    def __init__(self, standardise: Standardise, network: Adtr, score: HeatmapScore) -> None:
        super().__init__()
        self.standardise = standardise
        self.network = network
        self.score = score

    def forward(self, features_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        standard_BCHW = self.standardise(features_BCHW)
        difference_BCHW = standard_BCHW - self.network(standard_BCHW)
        return self.score(torch.linalg.vector_norm(difference_BCHW, dim=1))
