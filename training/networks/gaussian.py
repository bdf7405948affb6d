"""Mahalanobis distance to a Gaussian of good parts: training-free, and the floor to clear.

One Gaussian for each place on random channels is PaDiM (Defard et al., arXiv 2011.08785); one for
all places together suits parts that are not aligned (Rippel et al., arXiv 2005.14140).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_SHRINKAGE = 0.01  # of the mean variance, added to the diagonal, as in PaDiM


@dataclass(frozen=True)
class GaussianConfig:
    """`kept` channels of `channels`; `places` is height × width, or 1 for one Gaussian for all."""

    channels: int
    kept: int
    places: int


class Gaussian(nn.Module):
    """Standardised features (B, C, H, W) to Mahalanobis distances (B, H, W)."""

    def __init__(self, config: GaussianConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("channel_K", torch.zeros(config.kept, dtype=torch.long))
        self.register_buffer("mean_PK", torch.zeros(config.places, config.kept))
        # (x - mean) @ whitening has unit covariance: its norm is the distance.
        self.register_buffer("whitening_PKK", torch.zeros(config.places, config.kept, config.kept))
        self.channel_K: Tensor
        self.mean_PK: Tensor
        self.whitening_PKK: Tensor

    def forward(self, features_BCHW: Tensor) -> Tensor:
        centred_LBK = self._tokens(features_BCHW) - self.mean_PK.unsqueeze(1)
        distance_LB = torch.linalg.vector_norm(centred_LBK @ self.whitening_PKK, dim=2)
        return distance_LB.T.unflatten(1, features_BCHW.shape[2:])

    def _tokens(self, features_BCHW: Tensor) -> Tensor:
        return features_BCHW[:, self.channel_K].flatten(2).permute(2, 0, 1)  # (L, B, K)


class Moments:
    """Mean and covariance per place, gathered batch by batch."""

    def __init__(self, channel_K: Tensor, places: int) -> None:
        self._channel_K = channel_K
        kept = len(channel_K)
        self._count = 0
        self._sum_PK = torch.zeros(places, kept, dtype=torch.float64)
        self._square_PKK = torch.zeros(places, kept, kept, dtype=torch.float64)

    def add(self, features_BCHW: Tensor) -> None:
        """Take in standardised features."""
        tokens_LBK = features_BCHW[:, self._channel_K].flatten(2).permute(2, 0, 1)
        places, kept = self._sum_PK.shape
        if places == 1:
            tokens_LBK = tokens_LBK.reshape(1, -1, kept)
        self._count += tokens_LBK.shape[1]
        self._sum_PK += tokens_LBK.double().sum(1)
        self._square_PKK += (tokens_LBK.transpose(1, 2) @ tokens_LBK).double()

    def gaussian(self, channels: int) -> Gaussian:
        """The Gaussian of all that was taken in."""
        places, kept = self._sum_PK.shape
        module = Gaussian(GaussianConfig(channels, kept, places))
        mean_PK = self._sum_PK / self._count
        outer_PKK = mean_PK.unsqueeze(2) * mean_PK.unsqueeze(1)
        covariance_PKK = self._square_PKK / self._count - outer_PKK
        spread = covariance_PKK.diagonal(dim1=1, dim2=2).mean()
        identity_KK = torch.eye(kept, dtype=torch.float64)
        factor_PKK = torch.linalg.cholesky(covariance_PKK + _SHRINKAGE * spread * identity_KK)
        # Not `inv`: MKL's, of many matrices of 200 × 200 at once, fails.
        inverse_PKK = torch.linalg.solve_triangular(factor_PKK, identity_KK, upper=False)
        module.channel_K.copy_(self._channel_K)
        module.mean_PK.copy_(mean_PK)
        module.whitening_PKK.copy_(inverse_PKK.transpose(1, 2))
        return module.eval()
