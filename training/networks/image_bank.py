"""How far a whole image is from the most similar good images.

The direction of an image's mean feature says what it shows, the length how strong its contrast is:
so images are compared by the cosine (DN2, Bergman, Cohen & Hoshen, arXiv 2002.10445; PANDA, Reiss
et al., arXiv 2010.05903). The mean is of all cells, whatever the region of interest is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SMALLEST = 1e-6  # below, float32 cannot tell a cosine from 1


@dataclass(frozen=True)
class ImageBankConfig:
    """A bank of `size` images with `channels` each. The `neighbours` most similar ones count."""

    channels: int
    size: int
    neighbours: int = 10


class ImageBank(nn.Module):
    """Features (B, C, H, W) to one distance an image (B, 1, 1): 1 less its mean cosine to the
    nearest images of the bank."""

    def __init__(self, config: ImageBankConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bank_NC", torch.zeros(config.size, config.channels))
        self.bank_NC: Tensor

    def remember(self, features_NC: Tensor) -> None:
        """Fill the bank with images' mean features, in half precision's digits."""
        self.bank_NC.copy_(F.normalize(features_NC, dim=1).half())

    def forward(self, features_BCHW: Tensor) -> Tensor:
        direction_BC = F.normalize(features_BCHW.mean((2, 3)), dim=1)
        cosine_BK = (direction_BC @ self.bank_NC.T).topk(self.config.neighbours, dim=1).values
        distance_B: Tensor = (1 - cosine_BK.mean(1)).clamp_min(_SMALLEST)
        return distance_B.view(-1, 1, 1)
