"""Distances of good parts by branches that did not learn them.

Every part is held out once and learned by the final model: all calibrate, and none is wasted
(cross-conformal prediction, Vovk 2015; for anomaly detection Hennhöfer & Preisach, arXiv
2402.16388). What the folds' models know less of than the final one makes their distances larger:
`learning_curve` says by how much.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.folders import LabelledFile
from training.evaluation.scoring import Scored
from training.methods.registry import Method
from training.methods.train_context import TrainContext, evenly
from training.networks.scorer import HeatmapScore, Scorer, ScoreSettings

# Networks are trained anew for each fold, so there are fewer of them.
NETWORK_FOLDS = 2
# Parts that a fold's statistics are learned from, at most: more change nothing but the time.
LEARNED = 800
BATCH = 8


# The anomalies to learn beside good parts.
Exposure = Callable[[tuple[LabelledFile, ...]], tuple[LabelledFile, ...]]


@dataclass(frozen=True)
class CrossFit:
    """`distances` (P, N, H, W), in half precision, of each branch and each of `files`, by what did
    not learn the file; and the files' `transforms` (N, 4), or (N, 0) where none is aligned."""

    files: tuple[LabelledFile, ...]
    distances: Tensor
    transforms: Tensor

    def fused(self, scorer: Scorer) -> NDArray[np.float32]:
        """The scores (N) of the files, with the scorer's fusion."""
        found = []
        for start in range(0, len(self.files), BATCH):
            part = self.distances[:, start : start + BATCH].float()
            found.append(scorer.score.scores(scorer.fused(part)))
        return torch.cat(found).numpy()

    def only(self, kept: Sequence[int]) -> "CrossFit":
        """The same of some branches."""
        return CrossFit(self.files, self.distances[list(kept)], self.transforms)

    def scaled(self, ratio_P: Tensor) -> "CrossFit":
        """The same with each branch's distances multiplied."""
        scaled = (self.distances * ratio_P.view(-1, 1, 1, 1)).half()
        return CrossFit(self.files, scaled, self.transforms)

    def of(self, files: Sequence[LabelledFile]) -> "CrossFit":
        """The same of some files; those that are not among its own are left out."""
        numbers = {file.sha256: number for number, file in enumerate(self.files)}
        kept = [numbers[file.sha256] for file in files if file.sha256 in numbers]
        return CrossFit(
            tuple(self.files[n] for n in kept), self.distances[:, kept], self.transforms[kept]
        )

    def scored(self, scorer: Scorer) -> Iterator[Scored]:
        """Each file with its score and heatmap, with the scorer's fusion."""
        for start in range(0, len(self.files), BATCH):
            part = self.distances[:, start : start + BATCH].float()
            with torch.inference_mode():
                scores, heatmaps = scorer.shown(
                    scorer.fused(part), self.transforms[start : start + BATCH]
                )
            files = self.files[start : start + BATCH]
            yield from zip(files, scores.tolist(), heatmaps.numpy(), strict=True)

    def branch_scores(self, score: HeatmapScore, roi_HW: Tensor | None = None) -> Tensor:
        """The score (P, N) that each branch alone gives each file, as a distance."""
        inspected = torch.ones(self.distances.shape[2:]) if roi_HW is None else roi_HW
        found = []
        for start in range(0, len(self.files), BATCH):
            part = self.distances[:, start : start + BATCH].float()
            found.append(torch.stack([score.scores(each * inspected) for each in part]))
        return torch.cat(found, 1)


def cross_fit(
    method: Method,
    context: TrainContext,
    files: Sequence[LabelledFile],
    folds: NDArray[np.int64],
    settings: ScoreSettings | None = None,
    *,
    defective: Sequence[LabelledFile] = (),
    defective_folds: NDArray[np.int64] | None = None,
    exposure: Exposure | None = None,
) -> tuple[CrossFit, CrossFit]:
    """Learn the method's branches once for each fold, and measure what was held out.

    `folds` (N) belong to `files`, which are among those of the context. `defective` are labelled
    defects, or defects drawn on some of the files, and `defective_folds` the fold that measures
    each; those of the context are learned by the other folds. `exposure` makes the anomalies that
    networks learn besides from the parts that a fold learns. Returns both. Raises TrainingError.
    """
    if defective_folds is None:
        defective_folds = np.zeros(0, np.int64)
    every = [*files, *defective]
    all_folds = np.concatenate([folds, defective_folds])
    labelled = {file.sha256 for file in context.defective}
    distances: list[Tensor | None] = [None] * len(method.branches)
    for network in (False, True):
        chosen = [n for n, branch in enumerate(method.branches) if branch.trains is network]
        if not chosen:
            continue
        merged = all_folds % NETWORK_FOLDS if network else all_folds
        part = method.only(chosen)
        numbers = np.unique(merged[: len(files)])
        with context.reporter.bar("Cross-fitting", len(numbers)) as advance:
            for done, number in enumerate(numbers, 1):
                (held,) = np.nonzero(merged == number)
                others = [every[i] for i in np.flatnonzero(merged != number)]
                good = tuple(file for file in others if file.verdict == "ok")
                known = tuple(file for file in others if file.sha256 in labelled)
                if network and exposure:
                    known = exposure(good)
                learned = good if network else tuple(evenly(good, LEARNED))
                scorer, _ = part.learn(context.only(learned, known, fold=int(number)), settings)
                found = measure(scorer, context, [every[i] for i in held])
                for branch, each in zip(chosen, found, strict=True):
                    whole = distances[branch]
                    if whole is None:
                        shape = (len(every), *each.shape[1:])
                        whole = distances[branch] = torch.zeros(shape, dtype=torch.float16)
                    whole[torch.from_numpy(held)] = each
                advance(done, "")
    stacked = torch.stack([each for each in distances if each is not None])
    transforms = context.cache.transforms([file.sha256 for file in every])
    count = len(files)
    return (
        CrossFit(tuple(files), stacked[:, :count], transforms[:count]),
        CrossFit(tuple(defective), stacked[:, count:], transforms[count:]),
    )


def measure(scorer: Scorer, context: TrainContext, files: Sequence[LabelledFile]) -> Tensor:
    """Each branch's distances of files, (P, N, H, W), in half precision."""
    found_PNHW = torch.empty(
        len(scorer.branches), len(files), *scorer.layout.grid, dtype=torch.float16
    )
    with torch.inference_mode():
        for start in range(0, len(files), BATCH):
            names = [file.sha256 for file in files[start : start + BATCH]]
            found_PNHW[:, start : start + BATCH] = scorer.distances(context.cache.batch(names))
    return found_PNHW
