"""Features as deviations from a Gaussian of good parts: each counts by how rare it is.

One Gaussian for each position on random channels is PaDiM (Defard et al., arXiv 2011.08785); one
for all positions together suits parts that are not aligned (Rippel et al., arXiv 2005.14140).
Instead of channels, the directions in which good parts vary most can be kept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.positions import by_cell, by_position

_SILENCE = 1e-3  # of what directions vary in the mean; where a channel is dead, none is left
_MOST_SHRUNK = 0.95


@dataclass(frozen=True)
class WhiteningConfig:
    """`kept` directions of `channels`, and a Gaussian for each of `positions` (rows, columns).

    Of a finer grid, the cells of a block are one position; (1, 1) is one Gaussian for all. `pooled`
    takes the mean of all cells first: an image is one vector, which all its cells show.
    """

    channels: int
    kept: int
    positions: tuple[int, int]
    pooled: bool = False


class Whitening(nn.Module):
    """Standardised features (B, C, H, W) to (B, K, H, W): of unit covariance on good parts."""

    def __init__(self, config: WhiteningConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("direction_CK", torch.zeros(config.channels, config.kept))
        positions = config.positions[0] * config.positions[1]
        self.register_buffer("mean_PK", torch.zeros(positions, config.kept))
        self.register_buffer("whitening_PKK", torch.zeros(positions, config.kept, config.kept))
        self.direction_CK: Tensor
        self.mean_PK: Tensor
        self.whitening_PKK: Tensor

    def forward(self, features_BCHW: Tensor) -> Tensor:
        if self.config.positions == (1, 1) and not self.config.pooled:
            # Alike everywhere: one convolution of 1 × 1 does all in a fraction of the time.
            (mean_K,), (whitening_KK,) = self.mean_PK, self.whitening_PKK
            weight_KC = (self.direction_CK @ whitening_KK).T
            everywhere_BKHW: Tensor = F.conv2d(
                features_BCHW, weight_KC[..., None, None], -(mean_K @ whitening_KK)
            )
            return everywhere_BKHW
        grid = (1, 1) if self.config.pooled else features_BCHW.shape[2:]
        white_BKHW = by_cell(self.tokens(features_BCHW), self.config.positions, grid)
        return white_BKHW.expand(-1, -1, *features_BCHW.shape[2:])

    def tokens(self, features_BCHW: Tensor) -> Tensor:
        """The same by position, (P, N, K)."""
        along_BKHW = along(features_BCHW, self.direction_CK, pooled=self.config.pooled)
        tokens_PNK = by_position(along_BKHW, self.config.positions)
        white_PNK: Tensor = (tokens_PNK - self.mean_PK.unsqueeze(1)) @ self.whitening_PKK
        return white_PNK


class Moments:
    """Mean and covariance for each position, gathered batch by batch."""

    def __init__(
        self, direction_CK: Tensor, positions: tuple[int, int], *, pooled: bool = False
    ) -> None:
        self._direction_CK = direction_CK
        channels, kept = direction_CK.shape
        self._config = WhiteningConfig(channels, kept, positions, pooled)
        self._count = 0
        self._sum_PK = torch.zeros(positions[0] * positions[1], kept, dtype=torch.float64)
        self._square_PKK = torch.zeros(positions[0] * positions[1], kept, kept)
        self._origin_PK: Tensor | None = None

    def add(self, features_BCHW: Tensor) -> None:
        """Take in standardised features."""
        along_BKHW = along(features_BCHW, self._direction_CK, pooled=self._config.pooled)
        tokens_PNK = by_position(along_BKHW, self._config.positions)
        if self._origin_PK is None:  # squares around it stay small enough for float32
            self._origin_PK = tokens_PNK.mean(1)
        tokens_PNK = tokens_PNK - self._origin_PK.unsqueeze(1)
        self._count += tokens_PNK.shape[1]
        self._sum_PK += tokens_PNK.double().sum(1)
        self._square_PKK.baddbmm_(tokens_PNK.transpose(1, 2), tokens_PNK)

    def whitening(self, *, shrink: bool = False, ridge: float = 0.01) -> Whitening:
        """The whitening by all that was taken in.

        With `shrink`, each position's covariance moves towards the mean of all positions, by
        K / (K + N) for K directions and N cells: few parts cannot estimate many directions. To the
        diagonal is added `ridge` times the mean variance, as in PaDiM.
        """
        assert self._origin_PK is not None
        module = Whitening(self._config)
        # Shrunk covariances are far from singular: float32 is enough, and takes half the time.
        accuracy = torch.float32 if shrink else torch.float64
        mean_PK = (self._sum_PK / self._count).to(accuracy)
        # In place: of many positions this waits for memory more than for the processor.
        covariance_PKK = self._square_PKK.to(accuracy, copy=True).div_(self._count)
        covariance_PKK.baddbmm_(mean_PK.unsqueeze(2), mean_PK.unsqueeze(1), alpha=-1)
        kept = self._config.kept
        if shrink:
            weight = min(kept / (kept + self._count), _MOST_SHRUNK)
            covariance_PKK.lerp_(covariance_PKK.mean(0), weight)
        variance_K = covariance_PKK.diagonal(dim1=1, dim2=2).mean(0)
        ridge_K = ridge * variance_K.clamp_min(_SILENCE * variance_K.mean())
        if shrink:
            ridge_K = ridge * variance_K.mean().expand(kept)
        covariance_PKK.diagonal(dim1=1, dim2=2).add_(ridge_K)
        identity_KK = torch.eye(kept, dtype=accuracy)
        factor_PKK = torch.linalg.cholesky(covariance_PKK)
        # Not `inv`: MKL's, of many matrices of 200 × 200 at once, fails.
        inverse_PKK = torch.linalg.solve_triangular(factor_PKK, identity_KK, upper=False)
        module.direction_CK.copy_(self._direction_CK)
        module.mean_PK.copy_(mean_PK + self._origin_PK)
        # In half precision's digits: files keep it so, in half the space.
        module.whitening_PKK.copy_(inverse_PKK.transpose(1, 2).half())
        return module.eval()


def along(features_BCHW: Tensor, direction_CK: Tensor, *, pooled: bool) -> Tensor:
    """Features along some directions (B, K, H, W); one cell is left where they are pooled."""
    if pooled:
        features_BCHW = features_BCHW.mean((2, 3), keepdim=True)
    return (features_BCHW.permute(0, 2, 3, 1) @ direction_CK).permute(0, 3, 1, 2)
