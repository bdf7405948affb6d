"""Tells cells of labelled defects from cells of good parts."""

from dataclasses import dataclass

from torch import Tensor, nn

_DROPOUT = 0.2


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Features have so many `channels`; without an inner layer of `hidden` it is linear."""

    channels: int
    hidden: int = 64


class Discriminator(nn.Module):
    """Features (B, C, H, W) to the evidence for a known defect in each cell (B, H, W): logits, of
    which those below 0 speak against it."""

    signed = True

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        layers: list[nn.Module] = []
        if config.hidden:
            layers = [nn.Dropout(_DROPOUT), nn.Conv2d(width, config.hidden, 1), nn.GELU()]
            width = config.hidden
        self.body = nn.Sequential(*layers, nn.Dropout(_DROPOUT), nn.Conv2d(width, 1, 1))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        logits_B1HW: Tensor = self.body(features_BCHW)
        return logits_B1HW.squeeze(1)
