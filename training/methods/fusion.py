"""What the parts of a scorer count for when their distances are joined."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.backbones.features import FeatureCache
from training.data.drawn_defects import DRAWINGS, draw_anomalies
from training.data.folders import LabelledFile
from training.evaluation.bootstrap import draws
from training.evaluation.metrics import image_metrics
from training.networks.discriminator import Discriminator
from training.networks.orientation import Orientation
from training.networks.scorer import Reconstruction, Scorer
from training.progress import Reporter

# Of the scores that a part gives good parts; less would make it all that counts.
_STEADY = 1e-3
# The same of what knows defects, which says next to nothing of good parts where they are easily
# told apart: a small part of what it says of a defect that it is sure of.
_STEADY_KNOWING = 0.1
# Drawn defects, and the steps in which weights are tried.
DRAWN = 180
STEPS = 4


def balance(scorer: Scorer, cache: FeatureCache, normals: Sequence[LabelledFile]) -> None:
    """Take the units of a scorer's parts away: each is divided by the deviation of the scores that
    it alone gives good parts. It must not have learned these: from those that it holds, a bank is
    no distance away."""
    if len(scorer.parts) == 1:
        return
    distance_PBHW = distances(scorer, cache, normals)
    scores_PB = torch.stack([scorer.score.scores(part) for part in distance_PBHW])
    scorer.scale_P.copy_(scores_PB.std(1).clamp_min(_STEADY))
    scorer.scale_P[_knowing(scorer)] = scorer.scale_P[_knowing(scorer)].clamp_min(_STEADY_KNOWING)


def weigh(
    scorer: Scorer,
    cache: FeatureCache,
    normals: Sequence[LabelledFile],
    directory: Path,
    *,
    names: Sequence[str],
    seed: int,
    reporter: Reporter,
) -> tuple[Scorer, str]:
    """Choose what the parts of a balanced scorer count for.

    That is the most even weights whose scores tell defects drawn on good parts from these good
    parts as well as the best weights do, as far as these images can show: by image AUROC, within
    one standard error of the difference (Breiman et al. 1984).

    Which part sees best depends on the product: at its own place where parts lie alike in every
    image, anywhere where they do not. But drawn defects are not real ones, and parts that are blind
    to different things see more together. No label and no test image has a say.

    Returns a scorer without what counts for nothing, but with what can learn from labels later;
    and what was chosen, in words.
    """
    drawn = draw_anomalies(
        normals, cache, tuple(DRAWINGS), DRAWN, directory, seed=seed, reporter=reporter
    )
    distance_PBHW = distances(scorer, cache, (*normals, *drawn))
    anomalous = np.arange(distance_PBHW.shape[1]) >= len(normals)
    once_and_drawn = np.concatenate([np.ones((1, len(anomalous))), draws(anomalous)])
    tried = _weights(len(scorer.parts))
    found = []
    for weight_P in tried:
        scorer.weight_P.copy_(weight_P)
        scores = scorer.score.scores(scorer.join(distance_PBHW)).numpy()
        found.append(image_metrics(scores, anomalous, once_and_drawn)["image_auroc"])
    auroc_TB = np.stack(found)
    behind_TB = auroc_TB[auroc_TB[:, 0].argmax()] - auroc_TB
    (as_good,) = np.nonzero(behind_TB[:, 0] <= behind_TB[:, 1:].std(1))
    best = min(as_good, key=lambda t: (float(tried[t].square().sum()), -auroc_TB[t, 0]))
    scorer.weight_P.copy_(tried[best])
    shares = (f"{name} {w:.0%}" for name, w in zip(names, tried[best].tolist(), strict=True))
    chosen = f"Of the score count, by {DRAWN} drawn defects: {', '.join(shares)}."
    reporter.say(chosen)
    return _useful(scorer), chosen


def count_what_learned(scorer: Scorer, mix: float) -> None:
    """Let what has learned from labels or anomalies count, in place: before, it may have counted
    for nothing.

    What rebuilds or tells turns counts for no less than the mean part, what knows defects for `mix`
    of all others together.
    """
    knows = _knowing(scorer)
    for number, part in enumerate(scorer.parts):
        if isinstance(part, Reconstruction | Orientation):
            scorer.weight_P[number].clamp_min_(float(scorer.weight_P[~knows].mean()))
    scorer.weight_P[knows] = mix * float(scorer.weight_P[~knows].sum())


def with_discriminator(scorer: Scorer, discriminator: Discriminator) -> Scorer:
    """The scorer with what will know defects, in the place of what knew some before. The parts are
    shared with the one that is given."""
    kept = [n for n, part in enumerate(scorer.parts) if not isinstance(part, Discriminator)]
    grown = Scorer(
        scorer.shape,
        scorer.standardise,
        list(scorer.whitenings),
        [*(scorer.parts[n] for n in kept), discriminator],
        [*(scorer.sees[n] for n in kept), 0],
        scorer.score,
    )
    grown.scale_P[:-1] = scorer.scale_P[kept]
    grown.weight_P[:-1] = scorer.weight_P[kept]
    return grown.eval()


def _knowing(scorer: Scorer) -> Tensor:
    """Which parts know defects (P)."""
    return torch.tensor([isinstance(part, Discriminator) for part in scorer.parts])


def _useful(scorer: Scorer) -> Scorer:
    kept = [
        number
        for number, (part, weight) in enumerate(zip(scorer.parts, scorer.weight_P, strict=True))
        if weight > 0 or isinstance(part, Reconstruction)
    ]
    used = sorted({scorer.sees[number] for number in kept} - {0})
    useful = Scorer(
        scorer.shape,
        scorer.standardise,
        [scorer.whitenings[view - 1] for view in used],
        [scorer.parts[number] for number in kept],
        [used.index(scorer.sees[number]) + 1 if scorer.sees[number] else 0 for number in kept],
        scorer.score,
    )
    useful.scale_P.copy_(scorer.scale_P[kept])
    useful.weight_P.copy_(scorer.weight_P[kept])
    return useful.eval()


def distances(scorer: Scorer, cache: FeatureCache, files: Sequence[LabelledFile]) -> Tensor:
    """Each part's distances of all files, (P, B, H, W), neither scaled nor weighed."""
    with torch.inference_mode():
        return torch.cat(
            [scorer.distances(torch.from_numpy(cache[file.sha256])[None]) for file in files], 1
        )


def _weights(parts: int) -> list[Tensor]:
    """All that sum to 1, in steps."""
    counts = itertools.product(range(STEPS + 1), repeat=parts)
    return [torch.tensor(each) / STEPS for each in counts if sum(each) == STEPS]
