"""Convolutional autoencoders: of features, and of pixels. What ADTR's figure 1 compares it with.

A convolution can learn to copy (W → I), and a bottleneck is all that keeps it from it.
"""

import itertools
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class ConvolutionalConfig:
    """`widths` after each halving of the grid; the last is the bottleneck's."""

    channels: int
    widths: tuple[int, ...]


class ConvolutionalAutoencoder(nn.Module):
    """Features or pixels (B, C, H, W) to the same, rebuilt; H and W divide by 2**len(widths)."""

    def __init__(self, config: ConvolutionalConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.widths[0], *config.widths]
        down: list[nn.Module] = [_layer(nn.Conv2d(config.channels, widths[0], 3, 1, 1))]
        up: list[nn.Module] = []
        for wide, narrow in itertools.pairwise(widths):
            down.append(_layer(nn.Conv2d(wide, narrow, 4, 2, 1)))
            up.insert(0, _layer(nn.ConvTranspose2d(narrow, wide, 4, 2, 1)))
        self.encoder = nn.Sequential(*down)
        self.decoder = nn.Sequential(*up, nn.Conv2d(widths[0], config.channels, 3, 1, 1))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        rebuilt: Tensor = self.decoder(self.encoder(features_BCHW))
        return rebuilt


def _layer(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())
