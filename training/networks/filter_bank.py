"""Oriented filters by formula: features for a demo that needs no weights of anybody's.

Gabor's filters in quadrature, as the first layers of trained networks resemble them, over
octaves; the logarithm of their energy makes light of every strength alike.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ORIENTATIONS = 6
OCTAVES = 3
SIDE = 15  # pixels
SIGMA = 2.8  # pixels
FREQUENCY = 0.35 * math.pi  # radians per pixel
FLOOR = 0.01  # energy below which there is only noise; images are on a 0..1 scale


class FilterBank(nn.Module):
    """RGB (B, 3, H, W), 0..1, to a map per octave: (B, 21, H/2, W/2), /4 and /8."""

    def __init__(self) -> None:
        super().__init__()
        filters = torch.cat([gabor(i * math.pi / ORIENTATIONS) for i in range(ORIENTATIONS)])
        self.register_buffer("filters", filters.repeat(3, 1, 1, 1))
        self.filters: Tensor

    def forward(self, x: Tensor) -> list[Tensor]:
        red, green, blue = x.split(1, dim=1)
        # Brightness and two opponent colours, each seen by every filter.
        planes = torch.cat([x.mean(1, keepdim=True), red - green, (red + green) / 2 - blue], 1)
        maps = []
        for _ in range(OCTAVES):
            padded = F.pad(planes, (SIDE // 2,) * 4, mode="replicate")
            even, odd = F.conv2d(padded, self.filters, groups=3).unflatten(1, (-1, 2)).unbind(2)
            energy = (even.square() + odd.square() + FLOOR**2).sqrt().log()
            planes = F.avg_pool2d(planes, 2)
            maps.append(torch.cat([F.avg_pool2d(energy, 2), planes], 1))
        return maps


def gabor(angle: float) -> Tensor:
    """A pair of filters (2, 1, SIDE, SIDE), even and odd, blind to brightness, of unit norm."""
    reach = torch.arange(SIDE) - SIDE // 2
    y, x = torch.meshgrid(reach, reach, indexing="ij")
    window = torch.exp(-(x**2 + y**2) / (2 * SIGMA**2))
    phase = FREQUENCY * (x * math.cos(angle) + y * math.sin(angle))
    even, odd = window * phase.cos(), window * phase.sin()
    even = even - window * even.sum() / window.sum()
    return torch.stack([even / even.norm(), odd / odd.norm()]).unsqueeze(1)
