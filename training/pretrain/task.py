"""What a backbone is taught: to keep near good parts what is like them, and defects far.

It is k-nearest neighbours as inspection uses it, made a loss: features of a cell are standardised
by the good parts of its product, and its distance to the nearest of their cells, relative to what
is usual among them, must tell whether a defect is there.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.residual import ResidualNetwork

# Of a distance, below which only rounding is left.
_SMALLEST = 1e-6
# A channel's deviation is raised to this share of the mean one, as where features are inspected.
_FLOOR = 0.1
# How much telling images counts, beside telling cells.
_IMAGES = 0.5


class Task(nn.Module):
    """The network that is learned, with what is needed to judge it and thrown away afterwards.

    With `half`, the network computes in bfloat16.
    """

    def __init__(self, network: ResidualNetwork, *, half: bool) -> None:
        super().__init__()
        self.network = network
        self.in_half = half
        self.sharpness = nn.Parameter(torch.tensor(4.0))
        self.offset = nn.Parameter(torch.tensor(1.5))
        self.image_offset = nn.Parameter(torch.tensor(1.5))

    def forward(self, images_ENCHW: Tensor, references: int, changed_ENhw: Tensor) -> Tensor:
        """The loss of E episodes of N images each, the first `references` of which are good."""
        device = images_ENCHW.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.in_half):
            maps = self.network(images_ENCHW.flatten(0, 1))
        # Differences of squares lose in half precision what tells two cells apart, and a training
        # on a GPU computes all in it that is not told otherwise.
        with torch.autocast(device, enabled=False):
            features = gather([one.float() for one in maps]).unflatten(0, changed_ENhw.shape[:2])
            return self._loss(features, references, changed_ENhw)

    def _loss(self, features_ENCL: Tensor, references: int, changed_ENhw: Tensor) -> Tensor:
        far_ENL = relative_distances(features_ENCL, references)
        changed_ENL = changed_ENhw.flatten(2)
        logits = self.sharpness * far_ENL - self.offset
        cells = (_balanced(logits, changed_ENL == 1) + _balanced(-logits, changed_ENL == 0)) / 2
        # The farthest cell decides, as it does where parts are inspected; references are good.
        worst_EN = self.sharpness * far_ENL.amax(2) - self.image_offset
        bad_EN = (changed_ENL == 1).any(2)
        good_EN = (changed_ENL == 0).all(2)
        pictures = (_balanced(worst_EN, bad_EN) + _balanced(-worst_EN, good_EN)) / 2
        return cells + _IMAGES * pictures


def gather(maps: list[Tensor]) -> Tensor:
    """Maps of several strides, averaged over the cells of the last and joined: (B, C, cells)."""
    height, width = maps[-1].shape[2:]
    return torch.cat([F.adaptive_avg_pool2d(one, (height, width)) for one in maps], 1).flatten(2)


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
    far: Tensor = 0.5 * nearest.log().unflatten(1, (count, cells))
    return far - far[:, :references].mean((1, 2), keepdim=True)


def _balanced(logits: Tensor, chosen: Tensor) -> Tensor:
    """Mean log loss of those chosen being above 0; 0 if none is."""
    if not chosen.any():
        return logits.new_zeros(())
    return F.softplus(-logits[chosen]).mean()
