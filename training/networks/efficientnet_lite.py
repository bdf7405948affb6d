"""EfficientNet-Lite, for feature maps: EfficientNet (Tan & Le, arXiv 1905.11946) with ReLU6 and
without squeeze-and-excitation, as TensorFlow released it.

Its convolutions pad by TensorFlow's rule "same": with a stride of 2 and an even input, one pixel
less before than after. Layers stand in the order in which they are computed, which is the order of
published weights.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

_EPSILON = 1e-3  # of batch normalisation, as the weights were trained
_STEM = 32


@dataclass(frozen=True)
class Group:
    """Blocks of one width; the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


# Of Lite0; larger variants scale channels and repeats.
GROUPS = (
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24),
    Group(2, 5, 2, 6, 40),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
)
# The groups whose outputs are stages: the last one of each stride from 4 on.
STAGES = {"stage1": 1, "stage2": 2, "stage3": 4, "stage4": 6}


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """Factors of channels and of repeats."""

    width: float = 1.0
    depth: float = 1.0


VARIANTS = {
    "efficientnet_lite0": EfficientNetLiteConfig(1.0, 1.0),
    "efficientnet_lite1": EfficientNetLiteConfig(1.0, 1.1),
    "efficientnet_lite2": EfficientNetLiteConfig(1.1, 1.2),
}


class EfficientNetLite(nn.Module):
    """RGB (B, 3, H, W) to a map per stage, at strides 4, 8, 16 and 32; H and W are multiples of 32.

    Input is (RGB - mean) / deviation with ImageNet's figures.
    """

    def __init__(self, config: EfficientNetLiteConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EfficientNetLiteConfig()
        self.stem = Convolution(3, _STEM, 3, 2)
        groups, channels = [], _STEM
        for number, group in enumerate(GROUPS):
            at_an_end = number in (0, len(GROUPS) - 1)  # never deepened
            repeats = group.repeats if at_an_end else math.ceil(config.depth * group.repeats)
            out = _rounded(config.width * group.channels)
            blocks = []
            for place in range(repeats):
                stride = 1 if place else group.stride
                blocks.append(Block(channels, out, group.kernel, stride, group.expansion))
                channels = out
            groups.append(nn.Sequential(*blocks))
        self.groups = nn.ModuleList(groups)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        x_BCHW = F.relu6(self.stem(x_BCHW))
        maps = []
        for number, group in enumerate(self.groups):
            x_BCHW = group(x_BCHW)
            if number in STAGES.values():
                maps.append(x_BCHW)
        return maps

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the weights of a published state dict, whatever its names, by the order of layers.

        The classifier's are left over. Raises RuntimeError where shapes differ.
        """
        convolutions = [
            name for name, value in state.items() if name.endswith(".weight") and value.dim() == 4
        ]
        norms = [
            name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")
        ]
        own = [module for module in self.modules() if isinstance(module, Convolution)]
        if min(len(convolutions), len(norms)) < len(own):
            raise RuntimeError(f"{len(convolutions)} convolutions, not {len(own)}")
        for layer, convolution, norm in zip(own, convolutions, norms, strict=False):
            layer.convolution.load_state_dict({"weight": state[convolution]})
            layer.norm.load_state_dict(
                {key: state[f"{norm}.{key}"] for key in layer.norm.state_dict()}
            )

    def fuse(self) -> "EfficientNetLite":
        """Fold batch normalisation into the convolutions, in place, for inference."""
        self.eval()
        for module in self.modules():
            if isinstance(module, Convolution):
                assert isinstance(module.norm, nn.BatchNorm2d)
                module.convolution = fuse_conv_bn_eval(module.convolution, module.norm)
                module.norm = nn.Identity()
        return self


class Block(nn.Module):
    """An inverted bottleneck: widen, filter each channel, narrow; added to its input if it can."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = Convolution(channels, inner, 1) if expansion > 1 else None
        self.depthwise = Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = Convolution(inner, out, 1)
        self.residual = stride == 1 and channels == out

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW: Tensor = F.relu6(self.expand(x_BCHW)) if self.expand else x_BCHW
        y_BCHW = self.project(F.relu6(self.depthwise(y_BCHW)))
        return x_BCHW + y_BCHW if self.residual else y_BCHW


class Convolution(nn.Module):
    """A convolution with batch normalisation, padded by TensorFlow's rule "same"."""

    def __init__(
        self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, out, kernel, stride, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out, eps=_EPSILON)
        margin = kernel - stride
        self.padding = (margin // 2, margin - margin // 2) * 2 if margin > 0 else ()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.padding:
            x_BCHW = F.pad(x_BCHW, self.padding)
        out_BCHW: Tensor = self.norm(self.convolution(x_BCHW))
        return out_BCHW


def _rounded(channels: float, divisor: int = 8) -> int:
    """To a multiple of 8, never more than a tenth down."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
