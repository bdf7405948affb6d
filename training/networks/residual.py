"""A small residual network (He et al., arXiv 1512.03385), from pixels to maps at three strides."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Side in pixels of what brightness is averaged over, and in such cells, of what contrast is
# relative to: 40 × 40 pixels.
_CELL, _AROUND = 8, 5
# Deviation, of the brightest grey, below which there is nothing but a camera's noise.
_FLOOR = 0.01


@dataclass(frozen=True)
class ResidualConfig:
    """Channels of the stem and of each stage, and how many blocks a stage has."""

    stem: int = 24
    widths: tuple[int, ...] = (48, 96, 192)
    blocks: tuple[int, ...] = (1, 1, 2)


class ResidualNetwork(nn.Module):
    """RGB (B, 3, H, W), 0..1, to a map per stage: (B, widths[i], H / 4 / 2^i, W / 4 / 2^i).

    It sees brightness relative to its surroundings beside the pixels themselves: it then tells
    patterns by their form from the first steps on, whatever light fell on them.
    """

    def __init__(self, config: ResidualConfig | None = None) -> None:
        super().__init__()
        self.config = config or ResidualConfig()
        self.stem = nn.Sequential(*_convolution(4, self.config.stem, 2), nn.ReLU())
        stages, channels = [], self.config.stem
        for width, blocks in zip(self.config.widths, self.config.blocks, strict=True):
            stages.append(
                nn.Sequential(
                    Block(channels, width, 2), *(Block(width, width, 1) for _ in range(blocks - 1))
                )
            )
            channels = width
        self.stages = nn.ModuleList(stages)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        x_BCHW = self.stem(torch.cat([x_BCHW * 4 - 2, relative_brightness(x_BCHW)], 1))
        maps = []
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            maps.append(x_BCHW)
        return maps


def relative_brightness(x_BCHW: Tensor) -> Tensor:
    """Grey (B, 1, H, W), less its mean around each place, in deviations around it."""
    grey = x_BCHW.mean(1, keepdim=True)
    moments = F.avg_pool2d(torch.cat([grey, grey.square()], 1), _CELL)
    moments = F.avg_pool2d(moments, _AROUND, 1, _AROUND // 2, count_include_pad=False)
    moments = F.interpolate(moments, size=grey.shape[2:], mode="bilinear")
    mean, square = moments.split(1, 1)
    relative: Tensor = (grey - mean) * (square - mean.square()).clamp_min(_FLOOR**2).rsqrt()
    return relative


class Block(nn.Module):
    """Two convolutions of 3×3 beside a way straight through."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(channels, width, stride), nn.ReLU(), *_convolution(width, width, 1)
        )
        self.way: nn.Module = nn.Identity()
        if stride > 1 or channels != width:
            self.way = nn.Sequential(
                nn.AvgPool2d(3, stride, 1, count_include_pad=False),
                nn.Conv2d(channels, width, 1, bias=False),
                nn.BatchNorm2d(width),
            )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(self.body(x_BCHW) + self.way(x_BCHW))


def _convolution(channels: int, width: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)]
