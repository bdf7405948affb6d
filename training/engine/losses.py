"""ADTR's losses (arXiv 2209.01816, section 3.3) and that of known defects, per batch.

f and f̂ are features and their reconstruction, (B, C, H, W); a distance is (B, H, W). Both are
float32, whatever f̂ was computed in.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_SMALLEST = 1e-6


def reconstruction(features: Tensor, rebuilt: Tensor) -> Tensor:
    """Normal-only: the squared distance, summed over channels, averaged over cells and batch."""
    return (features - rebuilt.float()).square().sum(dim=1).mean()


def pseudo_huber(features: Tensor, rebuilt: Tensor) -> Tensor:
    """φ = sqrt(m² + 1) - 1 with m = mean_C |f - f̂|, (B, H, W).

    Computed as m² / (sqrt(m² + 1) + 1): the difference itself is 0 in float32 below m = 2e-4, and
    has no gradient there.
    """
    square = (features - rebuilt.float()).abs().mean(dim=1).square()
    return square / ((square + 1).sqrt() + 1)


def push(distance: Tensor) -> Tensor:
    """-log(1 - exp(-x)): large where an anomaly is rebuilt well. Finite for x ≥ 0, with a gradient
    there, too: what is rebuilt best is pushed."""
    return -torch.log(-torch.expm1(-(distance + _SMALLEST)))


def push_pull_pixels(phi: Tensor, anomalous: Tensor, alpha: float) -> Tensor:
    """Pixel-level labels: pull good cells together, push marked cells apart; (B).

    `anomalous` (B, H, W) is 0 or 1 per cell. Without a marked cell only the pull is left,
    since the push would be -log 0.
    """
    pull = ((1 - anomalous) * phi).mean(dim=(1, 2))
    pushed = push((anomalous * phi).mean(dim=(1, 2)))
    return pull + alpha * torch.where(anomalous.amax(dim=(1, 2)) > 0, pushed, 0.0)


def image_scores(cells: Tensor, k: int) -> Tensor:
    """The mean of the `k` largest cells (B, H, W) of each image, or of all where they are fewer."""
    flat = cells.flatten(1)
    return flat.topk(min(k, flat.shape[1]), dim=1).values.mean(dim=1)


def push_pull_images(phi: Tensor, anomalous: Tensor, alpha: float, k: int) -> Tensor:
    """Image-level labels: the mean of the k largest distances, pulled or pushed; (B).

    `anomalous` (B) is 0 or 1 per image; a grid of fewer than k cells counts them all.
    """
    largest = image_scores(phi, k)
    return (1 - anomalous) * largest + alpha * anomalous * push(largest)


def known_cells(logits: Tensor, anomalous: Tensor, defective: Tensor) -> Tensor:
    """Cross-entropy of marked cells against those of good images and against unmarked ones, each
    of the three as a whole: a quarter, a half, a quarter. What is not there is left out.

    `logits` and `anomalous` are (B, H, W), `defective` (B) is 0 or 1 per image.
    """
    by_cell = F.binary_cross_entropy_with_logits(logits, anomalous, reduction="none")
    marked = anomalous > 0
    of_defective = (defective > 0).view(-1, 1, 1).expand_as(marked)
    groups = ((0.25, marked), (0.5, ~of_defective), (0.25, of_defective & ~marked))
    return torch.stack([w * by_cell[group].mean() for w, group in groups if group.any()]).sum()


def known_images(logits: Tensor, defective: Tensor, k: int) -> Tensor:
    """Cross-entropy of images, for each of which the mean of its k largest logits speaks.

    `logits` are (B, H, W), `defective` (B) is 0 or 1; a grid of fewer than k cells counts them all.
    """
    return F.binary_cross_entropy_with_logits(image_scores(logits, k), defective)
