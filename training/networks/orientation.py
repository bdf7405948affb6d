"""Tells an upright part from the same part turned by quarters, and from other things."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

TURNS = 4  # quarters, upright included
OTHER = TURNS  # the outcome for what is no good part at all
_SIDE = 2  # windows per side, whose means are all that is seen


@dataclass(frozen=True)
class OrientationConfig:
    """Features are (channels, height, width), at least 2 cells per side; `hidden` is the width of
    the inner layer."""

    channels: int
    height: int
    width: int
    hidden: int = 512


class Orientation(nn.Module):
    """Features (B, C, H, W) to -log of the chance of an upright good part (B, H, W)."""

    def __init__(self, config: OrientationConfig) -> None:
        super().__init__()
        self.config = config
        window = (-(-config.height // _SIDE), -(-config.width // _SIDE))
        stride = (config.height - window[0], config.width - window[1])
        self.body = nn.Sequential(
            nn.AvgPool2d(window, stride),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(config.channels * _SIDE * _SIDE, config.hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(config.hidden, TURNS + 1),
        )

    def outcomes(self, features_BCHW: Tensor) -> Tensor:
        """What speaks for each turn, and for something else (B, 5)."""
        outcomes_BT: Tensor = self.body(features_BCHW)
        return outcomes_BT

    def forward(self, features_BCHW: Tensor) -> Tensor:
        surprise_B = -torch.log_softmax(self.outcomes(features_BCHW), dim=1)[:, 0]
        return surprise_B.view(-1, 1, 1).expand(-1, self.config.height, self.config.width)
