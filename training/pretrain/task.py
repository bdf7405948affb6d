"""What a backbone is taught: to name materials, and to keep what is like good parts near them.

The second is k-nearest neighbours as inspection uses it, made a loss: features of a cell are
standardised by the good parts of its product, and its distance to the nearest of their cells,
relative to what is usual among them, must tell whether a defect is there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.residual import ResidualNetwork
from training.pretrain.product import IGNORED

# Of a distance, below which only rounding is left.
_SMALLEST = 1e-6
# A channel's deviation is raised to this share of the mean one, as where features are inspected.
_FLOOR = 0.1


@dataclass(frozen=True)
class Lessons:
    """How much each of the losses counts."""

    cells: float = 1.0
    images: float = 0.5
    materials: float = 1.0


class Task(nn.Module):
    """The network that is learned, with what is needed to judge it and thrown away afterwards.

    It names `kinds` materials; with `half`, the network computes in bfloat16.
    """

    def __init__(
        self, network: ResidualNetwork, kinds: int, lessons: Lessons | None = None, *, half: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.lessons = lessons or Lessons()
        self.half = half
        self.name = nn.Linear(network.config.widths[-1], kinds)
        self.sharpness = nn.Parameter(torch.tensor(4.0))
        self.offset = nn.Parameter(torch.tensor(1.5))
        self.image_offset = nn.Parameter(torch.tensor(1.5))

    def forward(
        self, images_ENCHW: Tensor, references: int, kinds_ENhw: Tensor, changed_ENhw: Tensor
    ) -> Tensor:
        """The loss of E episodes of N images each, the first `references` of which are good."""
        device = images_ENCHW.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.half):
            maps = self.network(images_ENCHW.flatten(0, 1))
        # Differences of squares lose in half precision what tells two cells apart, and a training
        # on a GPU computes all in it that is not told otherwise.
        with torch.autocast(device, enabled=False):
            return self._loss([one.float() for one in maps], references, kinds_ENhw, changed_ENhw)

    def _loss(
        self, maps: list[Tensor], references: int, kinds_ENhw: Tensor, changed_ENhw: Tensor
    ) -> Tensor:
        loss = maps[0].new_zeros(())
        if self.lessons.materials:
            names = self.name(maps[-1].permute(0, 2, 3, 1).flatten(0, 2))
            kinds = kinds_ENhw.flatten()
            # Not the mean, which is of nothing where no cell of the batch has a name.
            total = F.cross_entropy(
                names, kinds, ignore_index=IGNORED, label_smoothing=0.05, reduction="sum"
            )
            loss = loss + self.lessons.materials * total / (kinds != IGNORED).sum().clamp_min(1)
        if self.lessons.cells or self.lessons.images:
            features = gather(maps).unflatten(0, changed_ENhw.shape[:2])
            cells, pictures = self._judge(features, references, changed_ENhw)
            loss = loss + self.lessons.cells * cells + self.lessons.images * pictures
        return loss

    def _judge(
        self, features_ENCL: Tensor, references: int, changed_ENhw: Tensor
    ) -> tuple[Tensor, Tensor]:
        far_ENL = relative_distances(features_ENCL, references)
        changed_ENL = changed_ENhw.flatten(2)
        logits = self.sharpness * far_ENL - self.offset
        cells = (_balanced(logits, changed_ENL == 1) + _balanced(-logits, changed_ENL == 0)) / 2
        # The farthest cell decides, as it does where parts are inspected; references are good.
        worst_EN = self.sharpness * far_ENL.amax(2) - self.image_offset
        bad_EN = (changed_ENL == 1).any(2)
        good_EN = (changed_ENL == 0).all(2)
        pictures = (_balanced(worst_EN, bad_EN) + _balanced(-worst_EN, good_EN)) / 2
        return cells, pictures


def gather(maps: list[Tensor]) -> Tensor:
    """Maps of several strides, averaged over the cells of the last and joined: (B, C, cells)."""
    side = maps[-1].shape[2:]
    return torch.cat([F.adaptive_avg_pool2d(one, side) for one in maps], 1).flatten(2)


def relative_distances(features_ENCL: Tensor, references: int) -> Tensor:
    """How far each cell is from the nearest of the references, (E, N, L), in logarithms.

    References are measured against the other references; what is usual among them is subtracted.
    """
    known = features_ENCL[:, :references]
    mean = known.mean((1, 3), keepdim=True)
    deviation = (known.var((1, 3), keepdim=True) + _SMALLEST).sqrt()
    deviation = deviation.maximum(_FLOOR * deviation.mean(2, keepdim=True))
    tokens_ENLC = ((features_ENCL - mean) / deviation).transpose(2, 3)
    count, cells = tokens_ENLC.shape[1:3]
    flat = tokens_ENLC.flatten(1, 2)
    bank = flat[:, : references * cells]
    square = (
        flat.square().sum(2, keepdim=True) - 2 * flat @ bank.transpose(1, 2)
        + bank.square().sum(2)[:, None]
    ) / tokens_ENLC.shape[3]  # fmt: skip
    itself = torch.zeros(count, references, device=flat.device, dtype=torch.bool)
    itself.fill_diagonal_(True)
    itself = itself.repeat_interleave(cells, 0).repeat_interleave(cells, 1)
    nearest = square.masked_fill(itself, torch.inf).amin(2).clamp_min(_SMALLEST)
    far = 0.5 * nearest.log().unflatten(1, (count, cells))
    return far - far[:, :references].mean((1, 2), keepdim=True)


def _balanced(logits: Tensor, chosen: Tensor) -> Tensor:
    """Mean log loss of those chosen being above 0; 0 if none is."""
    if not chosen.any():
        return logits.new_zeros(())
    return F.softplus(-logits[chosen]).mean()
