"""How the branches of a scorer are fused: in which units, and which of them at all."""

import itertools
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from training.evaluation.bootstrap import draws
from training.evaluation.metrics import image_metrics
from training.networks.discriminator import Discriminator
from training.networks.scorer import BranchInput, Fusion, Reconstruction, Scorer, Standardise
from training.networks.whitening import Whitening

# The share of good parts below the upper end of what is usual, and how many deviations from the
# median that is in a normal distribution. A tenth of the parts can be odd without a say in it.
_USUAL, _DEVIATIONS = 0.9, 1.2816
# Of the logarithm of scores: what varies less between good parts varies by chance.
_STEADY = 0.02
# Of a discriminator's logits on good parts, which are all alike where defects are easily told.
_STEADY_SIGNED = 1.0
_HARDLY_ANY = 0.95
# What patches from anywhere count, against what knows the place: drawn defects stand out from
# both, real ones from the latter.
ANYWHERE = 0.5
# What known defects' logits below 0 count against what other branches suspect: on magnetic tiles,
# twice as much finds more defects of labelled kinds, and misses more of others.
_AGAINST = 0.1
# Image AUROCs outside of which a few dozen drawn defects show no difference between branches.
_AUROC_LIMITS = (0.6, 0.995)


def fit_fusion(scorer: Scorer, scores_PN: Tensor) -> None:
    """Set the units in which branches are fused, in place: the median and the upper deviation of
    the scores (P, N) that each branch alone gives good parts that it has not learned.

    Upwards alone: a branch by which some good parts stand out says less when a part does. A signed
    branch, which knows a few defects, counts from where hardly any good part reaches.
    """
    fusion: Fusion = scorer.fusion
    evidence = fusion.evidence(scores_PN)
    centre = evidence.median(1).values
    deviation = (evidence.quantile(_USUAL, dim=1) - centre) / _DEVIATIONS
    floor = torch.where(fusion.signed_P, _STEADY_SIGNED, _STEADY)
    reached = evidence.quantile(_HARDLY_ANY, dim=1)
    fusion.centre_P.copy_(torch.where(fusion.signed_P, reached, centre))
    fusion.scale_P.copy_(torch.maximum(deviation, floor))


def choose_branches(
    scorer: Scorer,
    good_PNHW: Tensor,
    drawn_PMHW: Tensor,
    names: Sequence[str],
    families: Sequence[str],
) -> tuple[Scorer, list[int], str]:
    """Weigh branches (P) by how well each tells drawn defects from good parts, neither of which was
    learned, and leave out the families without which they are told better.

    A branch's deviations count by the distance between good parts and drawn defects that its image
    AUROC stands for (d', Green & Swets 1966), squared, against that of the best one: what tells
    little of this product adds little noise. Patches from anywhere count by `ANYWHERE` of that.

    Of all choices of families, that of the most is taken whose image AUROC is within one standard
    error of the best, of the difference: drawings are found easily, and what they do not show may
    be what real defects look like. So single branches are not left out either.

    Returns the scorer of the branches that are kept, their numbers, and the choice in words.
    """
    count = len(scorer.branches)
    if count == 1:
        return scorer, [0], ""
    anomalous = np.arange(good_PNHW.shape[1] + drawn_PMHW.shape[1]) >= good_PNHW.shape[1]
    once_and_drawn = np.concatenate([np.ones((1, len(anomalous))), draws(anomalous)])
    distances = torch.cat([good_PNHW, drawn_PMHW], 1)

    def auroc(kept: Sequence[int]) -> NDArray[np.float64]:
        scores = _fused(only_branches(scorer, kept), distances[list(kept)])
        return image_metrics(scores, anomalous, once_and_drawn)["image_auroc"]

    alone = np.array([auroc([number])[0] for number in range(count)])
    apart = ndtri(alone.clip(*_AUROC_LIMITS))
    counts = apart**2 * np.array([ANYWHERE if f == "anywhere" else 1.0 for f in families])
    scorer.fusion.reliable_P.copy_(torch.from_numpy(counts / counts.max()))
    choices = [
        [number for number in range(count) if families[number] in chosen]
        for size in range(1, len(set(families)) + 1)
        for chosen in itertools.combinations(dict.fromkeys(families), size)
    ]
    auroc_TB = np.stack([auroc(choice) for choice in choices])
    behind_TB = auroc_TB[auroc_TB[:, 0].argmax()] - auroc_TB
    (as_good,) = np.nonzero(behind_TB[:, 0] <= behind_TB[:, 1:].std(1))
    best = max(as_good, key=lambda t: (len({families[n] for n in choices[t]}), auroc_TB[t, 0]))
    kept = choices[best]

    def listed(numbers: Sequence[int]) -> str:
        return ", ".join(f"{names[number]} {100 * alone[number]:.1f}" for number in numbers)

    text = (
        f"Between good parts and {drawn_PMHW.shape[1]} drawn defects the branches have an image "
        f"AUROC of {100 * auroc_TB[best, 0]:.1f}; each alone: {listed(kept)}."
    )
    if left := [number for number in range(count) if number not in kept]:
        text += f" Left out, since defects are told better without: {listed(left)}."
    return only_branches(scorer, kept), kept, text


def only_branches(scorer: Scorer, kept: Sequence[int]) -> Scorer:
    """The scorer of some branches, which are shared with the one that is given."""
    inputs = [scorer.inputs[number] for number in kept]
    used = sorted({source.whitening for source in inputs if source.whitening is not None})
    smaller = Scorer(
        scorer.layout,
        cast(list[Standardise], list(scorer.standardise)),
        cast(list[Whitening], [scorer.whitenings[number] for number in used]),
        [scorer.branches[number] for number in kept],
        [
            BranchInput(each.view, None if each.whitening is None else used.index(each.whitening))
            for each in inputs
        ],
        scorer.score,
        scorer.roi_HW,
        scorer.always_HW,
    )
    _copy_fusion(scorer.fusion, smaller.fusion, kept)
    return smaller.eval()


def keep_reliability(champion: Scorer, candidate: Scorer) -> None:
    """Let a champion's branches count in the candidate as they did, in place; what is new in the
    candidate comes after them and counts fully."""
    kept = min(len(champion.branches), int((~discriminators(candidate)).sum()))
    candidate.fusion.reliable_P[:kept] = champion.fusion.reliable_P[:kept]


def weigh_learned(scorer: Scorer, share: float) -> None:
    """Let branches that have learned from labels count, in place: the discriminator `share` of all
    others together, a network no less than the mean branch. With a share, what a discriminator does
    not know speaks against what others suspect, too."""
    known = discriminators(scorer)
    weight = scorer.fusion.weight_P.clone()
    others = weight[~known]
    for number, branch in enumerate(scorer.branches):
        if isinstance(branch, Reconstruction):
            weight[number] = weight[number].clamp_min(float(others.mean()))
    weight[known] = share * float(weight[~known].sum())
    scorer.fusion.against.fill_(_AGAINST if share > 0 and bool(known.any()) else 0.0)
    scorer.fusion.weight_P.copy_(weight / weight.sum())


def discriminators(scorer: Scorer) -> Tensor:
    """Which branches know labelled defects (P)."""
    return torch.tensor([isinstance(branch, Discriminator) for branch in scorer.branches])


def _fused(scorer: Scorer, distances_PNHW: Tensor) -> np.ndarray:
    found = [
        scorer.score.scores(scorer.fused(part.float())) for part in distances_PNHW.split(16, dim=1)
    ]
    return torch.cat(found).numpy()


def _copy_fusion(given: Fusion, taken: Fusion, kept: Sequence[int]) -> None:
    for name in ("centre_P", "scale_P", "reliable_P", "weight_P"):
        getattr(taken, name)[: len(kept)] = getattr(given, name)[list(kept)]
    taken.weight_P.div_(taken.weight_P.sum())
