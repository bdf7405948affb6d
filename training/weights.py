"""What the parts of a scorer count for when their distances are joined."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.anomalies import DRAWINGS, draw_anomalies
from training.data import LabelledFile
from training.features import FeatureCache
from training.metrics import image_metrics
from training.networks.scorer import Reconstruction, Scorer
from training.progress import Reporter

# Of the scores that a part gives good parts; less would make it all that counts.
_STEADY = 1e-3
# Drawn defects of each kind, and the steps in which weights are tried.
DRAWN = 60
STEPS = 4
# Of the drawn ones.
LEAST = 0.1


def balance(scorer: Scorer, cache: FeatureCache, normals: Sequence[LabelledFile]) -> None:
    """Take the units of a scorer's parts away: each is divided by the deviation of the scores that
    it alone gives good parts. It must not have learned these: from those that it holds, a bank is
    no distance away."""
    if len(scorer.parts) == 1:
        return
    distance_PBHW = _distances(scorer, cache, normals)
    scores_PB = torch.stack([scorer.score.scores(part) for part in distance_PBHW])
    scorer.scale_P.copy_(scores_PB.std(1).clamp_min(_STEADY))


def weigh(
    scorer: Scorer,
    cache: FeatureCache,
    normals: Sequence[LabelledFile],
    directory: Path,
    *,
    names: Sequence[str],
    seed: int,
    reporter: Reporter,
) -> Scorer:
    """Choose what the parts of a balanced scorer count for: the weights with which its scores best
    tell defects drawn on good parts from these good parts, as the mean image AUROC over the kinds
    of drawings. Where that differs by less than a thousandth, nearly all are told apart, and those
    weights are chosen that put the least of the drawn ones farthest away.

    Which part sees best depends on the product: at its own place where parts lie alike in every
    image, anywhere where they do not. No label and no test image has a say.

    Returns a scorer without what counts for nothing, but with what can learn from labels later.
    """
    good_PBHW = _distances(scorer, cache, normals)
    drawn = []
    for kind in DRAWINGS:
        files = draw_anomalies(
            normals, cache, (kind,), DRAWN, directory, seed=seed, reporter=reporter
        )
        drawn.append(_distances(scorer, cache, files))

    def found(weight_P: Tensor) -> tuple[float, float]:
        scorer.weight_P.copy_(weight_P)
        good, *scores = (scorer.score.scores(scorer.join(given)) for given in (good_PBHW, *drawn))
        auroc = float(np.mean([_auroc(good, of_kind) for of_kind in scores]))
        least = torch.cat(scores).quantile(LEAST)
        return round(auroc, 3), float((least - good.mean()) / good.std())

    best = max(_weights(len(scorer.parts)), key=found)
    scorer.weight_P.copy_(best)
    shares = (f"{name} {share:.0%}" for name, share in zip(names, best.tolist(), strict=True))
    reporter.say(f"Of the score count, by {DRAWN * len(drawn)} drawn defects: {', '.join(shares)}.")
    return _useful(scorer)


def count_what_learned(scorer: Scorer) -> None:
    """Let what has learned from labels count for no less than the mean part, in place: before, it
    may have counted for nothing."""
    for number, part in enumerate(scorer.parts):
        if isinstance(part, Reconstruction):
            scorer.weight_P[number].clamp_min_(float(scorer.weight_P.mean()))


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


def _distances(scorer: Scorer, cache: FeatureCache, files: Sequence[LabelledFile]) -> Tensor:
    """Each part's distances of all files, (P, B, H, W)."""
    with torch.inference_mode():
        return torch.cat(
            [scorer.distances(torch.from_numpy(cache[file.sha256])[None]) for file in files], 1
        )


def _auroc(good: Tensor, drawn: Tensor) -> float:
    scores = torch.cat([good, drawn]).numpy()
    anomalous = np.arange(len(scores)) >= len(good)
    return float(image_metrics(scores, anomalous, np.ones((1, len(scores))))["image_auroc"][0])


def _weights(parts: int) -> Iterator[Tensor]:
    """All that sum to 1, in steps."""
    for counts in itertools.product(range(STEPS + 1), repeat=parts):
        if sum(counts) == STEPS:
            yield torch.tensor(counts) / STEPS
