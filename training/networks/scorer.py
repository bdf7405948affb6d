"""From features to distances on the grid, to a heatmap at the image's size, and to a score."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.whitening import Whitening

STD_FLOOR = 0.1  # of the mean deviation over all channels


@dataclass(frozen=True)
class ScoreSettings:
    """`sigma` smooths the heatmap. The score is the largest mean over a window of `pool` × `pool`
    pixels, moved by a quarter of its side; a window as large as the image makes it the mean.
    """

    sigma: float = 4.0
    pool: int = 16


class HeatmapScore(nn.Module):
    """Distances (B, H, W) to score (B) and heatmap (B, h, w), both from the upsampled map.

    The heatmap is smoothed, the score is not: a small defect does not bear it twice.
    """

    def __init__(self, stride: int, settings: ScoreSettings | None = None) -> None:
        super().__init__()
        self.settings = settings = settings or ScoreSettings()
        self.stride = stride
        self.pool = settings.pool
        self.radius = math.ceil(3 * settings.sigma)
        offsets = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (offsets / settings.sigma) ** 2)
        self.register_buffer("kernel", kernel / kernel.sum())
        self.kernel: Tensor

    def forward(self, distance_BHW: Tensor) -> tuple[Tensor, Tensor]:
        fine = self._fine(distance_BHW)
        padded = F.pad(fine, (self.radius,) * 4, mode="replicate")
        across = F.conv2d(padded, self.kernel.view(1, 1, 1, -1))
        heatmap = F.conv2d(across, self.kernel.view(1, 1, -1, 1))
        return self._largest(fine), heatmap.squeeze(1)

    def scores(self, distance_BHW: Tensor) -> Tensor:
        """The score (B) alone, in a fraction of the time."""
        return self._largest(self._fine(distance_BHW))

    def _fine(self, distance_BHW: Tensor) -> Tensor:
        coarse = distance_BHW.unsqueeze(1)
        return F.interpolate(coarse, scale_factor=self.stride, mode="bilinear", align_corners=False)

    def _largest(self, fine_B1hw: Tensor) -> Tensor:
        return F.avg_pool2d(fine_B1hw, self.pool, stride=self.pool // 4).amax(dim=(1, 2, 3))


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

    @classmethod
    def blank(cls, channels: int) -> "Standardise":
        """One to load values into."""
        return cls(torch.zeros(channels), torch.ones(channels))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return (features_BCHW - self.mean) / self.std


class Reconstruction(nn.Module):
    """The distance (B, H, W) between features (B, C, H, W) and what `network` makes of them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return torch.linalg.vector_norm(features_BCHW - self.network(features_BCHW), dim=1)


class Length(nn.Module):
    """The length (B, H, W) of features (B, C, H, W): of whitened ones, their Mahalanobis distance
    from good parts."""

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return torch.linalg.vector_norm(features_BCHW, dim=1)


class Scorer(nn.Module):
    """Raw features (B, C, H, W) to score (B) and heatmap (B, h, w): what a bundle holds.

    Features are standardised. Each part turns them, or what the whitening with the number in
    `sees` makes of them, into distances (B, H, W); 0 is none. These are added, each divided
    by its `scale`, which takes its unit away, and multiplied by its `weight`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        standardise: Standardise,
        whitenings: Sequence[Whitening],
        parts: Sequence[nn.Module],
        sees: Sequence[int],
        score: HeatmapScore,
    ) -> None:
        super().__init__()
        self.shape = shape  # (C, H, W)
        self.standardise = standardise
        self.whitenings = nn.ModuleList(whitenings)
        self.parts = nn.ModuleList(parts)
        self.sees = tuple(sees)
        self.register_buffer("scale_P", torch.ones(len(parts)))
        self.register_buffer("weight_P", torch.ones(len(parts)))
        self.scale_P: Tensor
        self.weight_P: Tensor
        self.score = score

    def seen(self, features_BCHW: Tensor, part: int) -> Tensor:
        """Raw features (B, C, H, W) as the part with this number sees them, (B, K, H, W)."""
        standard_BCHW: Tensor = self.standardise(features_BCHW)
        view = self.sees[part]
        return self.whitenings[view - 1](standard_BCHW) if view else standard_BCHW

    def distances(self, features_BCHW: Tensor) -> Tensor:
        """Each part's distances of raw features, (P, B, H, W), neither scaled nor weighed."""
        standard_BCHW = self.standardise(features_BCHW)
        seen = [standard_BCHW, *(whitening(standard_BCHW) for whitening in self.whitenings)]
        return torch.stack([part(seen[i]) for part, i in zip(self.parts, self.sees, strict=True)])

    def join(self, distance_PBHW: Tensor) -> Tensor:
        """All parts' distances, scaled, weighed and added, (B, H, W)."""
        factor_P = self.weight_P / self.scale_P
        return (distance_PBHW * factor_P.view(-1, 1, 1, 1)).sum(0)

    def forward(self, features_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.score(self.join(self.distances(features_BCHW)))
