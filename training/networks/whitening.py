"""Features as deviations from a Gaussian of good parts: each counts by how rare it is.

One Gaussian for each place on random channels is PaDiM (Defard et al., arXiv 2011.08785); one for
all places together suits parts that are not aligned (Rippel et al., arXiv 2005.14140). Instead of
channels, the directions in which good parts vary most can be kept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_SHRINKAGE = 0.01  # of a direction's mean variance, added to the diagonal, as in PaDiM


@dataclass(frozen=True)
class WhiteningConfig:
    """`kept` directions of `channels`; `places` is height × width, or 1: one Gaussian for all.

    `pooled` takes the mean of all cells first: an image is one vector, which all its cells show.
    """

    channels: int
    kept: int
    places: int
    pooled: bool = False


class Whitening(nn.Module):
    """Standardised features (B, C, H, W) to (B, K, H, W): of unit covariance on good parts."""

    def __init__(self, config: WhiteningConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("direction_CK", torch.zeros(config.channels, config.kept))
        self.register_buffer("mean_PK", torch.zeros(config.places, config.kept))
        self.register_buffer("whitening_PKK", torch.zeros(config.places, config.kept, config.kept))
        self.direction_CK: Tensor
        self.mean_PK: Tensor
        self.whitening_PKK: Tensor

    def forward(self, features_BCHW: Tensor) -> Tensor:
        batch, _, height, width = features_BCHW.shape
        along_LBK = tokens(features_BCHW, self.direction_CK, self.config.pooled)
        white_LBK = (along_LBK - self.mean_PK.unsqueeze(1)) @ self.whitening_PKK
        white_BKL = white_LBK.permute(1, 2, 0).expand(batch, -1, height * width)
        return white_BKL.unflatten(2, (height, width))


class Moments:
    """Mean and covariance per place, gathered batch by batch."""

    def __init__(self, direction_CK: Tensor, places: int, *, pooled: bool = False) -> None:
        self._direction_CK = direction_CK
        self._pooled = pooled
        kept = direction_CK.shape[1]
        self._count = 0
        self._sum_PK = torch.zeros(places, kept, dtype=torch.float64)
        self._square_PKK = torch.zeros(places, kept, kept, dtype=torch.float64)

    def add(self, features_BCHW: Tensor) -> None:
        """Take in standardised features."""
        tokens_LBK = tokens(features_BCHW, self._direction_CK, self._pooled)
        places, kept = self._sum_PK.shape
        if places == 1:
            tokens_LBK = tokens_LBK.reshape(1, -1, kept)
        self._count += tokens_LBK.shape[1]
        self._sum_PK += tokens_LBK.double().sum(1)
        self._square_PKK += (tokens_LBK.transpose(1, 2) @ tokens_LBK).double()

    def whitening(self) -> Whitening:
        """What makes all that was taken in white."""
        channels = len(self._direction_CK)
        places, kept = self._sum_PK.shape
        module = Whitening(WhiteningConfig(channels, kept, places, self._pooled))
        mean_PK = self._sum_PK / self._count
        outer_PKK = mean_PK.unsqueeze(2) * mean_PK.unsqueeze(1)
        covariance_PKK = self._square_PKK / self._count - outer_PKK
        ridge_K = _SHRINKAGE * covariance_PKK.diagonal(dim1=1, dim2=2).mean(0)
        identity_KK = torch.eye(kept, dtype=torch.float64)
        factor_PKK = torch.linalg.cholesky(covariance_PKK + ridge_K * identity_KK)
        # Not `inv`: MKL's, of many matrices of 200 × 200 at once, fails.
        inverse_PKK = torch.linalg.solve_triangular(factor_PKK, identity_KK, upper=False)
        module.direction_CK.copy_(self._direction_CK)
        module.mean_PK.copy_(mean_PK)
        module.whitening_PKK.copy_(inverse_PKK.transpose(1, 2))
        return module.eval()


def tokens(features_BCHW: Tensor, direction_CK: Tensor, pooled: bool) -> Tensor:
    """Features along some directions, place by place (L, B, K); L is 1 where they are pooled."""
    along_LBK = features_BCHW.flatten(2).permute(2, 0, 1) @ direction_CK
    return along_LBK.mean(0, keepdim=True) if pooled else along_LBK
