"""Tells by how many quarters a part was turned; unsure where it is not one of those it knows."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

TURNS = 4  # quarters, upright included


@dataclass(frozen=True)
class OrientationConfig:
    """Features are (channels, height, width); `hidden` is the width of both inner layers."""

    channels: int
    height: int
    width: int
    hidden: int = 128


class Orientation(nn.Module):
    """Features (B, C, H, W) to -log of the chance that they are upright (B, H, W)."""

    def __init__(self, config: OrientationConfig) -> None:
        super().__init__()
        self.config = config
        rows, columns = (config.height + 1) // 2, (config.width + 1) // 2
        self.body = nn.Sequential(
            nn.Conv2d(config.channels, config.hidden, 1),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Conv2d(config.hidden, config.hidden, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(config.hidden * rows * columns, TURNS),
        )

    def turn(self, features_BCHW: Tensor) -> Tensor:
        """What speaks for each turn (B, 4)."""
        turns_BT: Tensor = self.body(features_BCHW)
        return turns_BT

    def forward(self, features_BCHW: Tensor) -> Tensor:
        surprise_B = -torch.log_softmax(self.turn(features_BCHW), dim=1)[:, 0]
        return surprise_B.view(-1, 1, 1).expand(-1, self.config.height, self.config.width)
