"""What a few labels of the product are worth: the case that the paper does not try.

The test images are halved by content hash. Labels are taken from one half, as an operator would
give them; the other measures the model before and after it has learned them. It never has a say in
how they are learned.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from models.bundle import CHECKPOINT, Bundle, Thresholds
from training.backbones.features import FeatureCache
from training.calibration.thresholds import calibrate
from training.data.folders import Dataset, LabelledFile
from training.directories import Directories
from training.engine.checkpoint import load_checkpoint
from training.engine.distributed import Worker
from training.errors import TrainingError
from training.evaluation.scoring import evaluate, score_features
from training.evaluation.verdicts import verdict_shares
from training.finetuning.candidate import Labels, Learning, train_candidate
from training.finetuning.retrain import champion_method, champion_source
from training.fitting.training import gather_features
from training.networks.scorer import Scorer
from training.progress import Reporter

Choice = Literal["kind", "random", "active"]

# How a benchmark is told: `masks-10`, `images-3-unseen`, `active-20`.
SPELLING = re.compile(r"(masks|images|random|active)-([1-9]\d*)(-unseen)?")
EXAMPLES = "masks-N, images-N, random-N, active-N"
_SEED = 1000  # which defects are labelled, apart from the seed of the weights


@dataclass(frozen=True)
class Labelling:
    """Which images are labelled, and how.

    By `kind`, so many defects of each; at `random` or `active`, so many images good or not, those
    whose scores are nearest to the champion's thresholds. With `masks` each defect's pixels are
    marked. With `unseen`, each kind of defect in turn is never labelled, and is what is tested.
    """

    count: int
    choice: Choice
    masks: bool
    unseen: bool = False


def labelling(name: str) -> Labelling | None:
    """The labelling of this name, or None where it is none's."""
    found = SPELLING.fullmatch(name)
    if not found:
        return None
    how, count, unseen = found.groups()
    choice = cast(Choice, how) if how in ("random", "active") else "kind"
    if unseen and choice != "kind":
        return None
    return Labelling(int(count), choice, how != "images", bool(unseen))


def learn_few(
    data: Dataset,
    champion: Bundle,
    places: Directories,
    how: Labelling,
    *,
    seed: int,
    steps: int | None = None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Metrics of the champion and of what it becomes, on images that were not for labelling.

    Raises TrainingError where there is nothing to label.
    """
    source = champion_source(champion)
    cache = FeatureCache(places.cache, source)
    gather_features(cache, data.train + data.test, reporter)
    pool, tested = halves(data.test)
    learner = _Learner(
        data, champion, cache, how, seed, steps, reporter, places.cache / "anomalies"
    )
    if not how.unseen:
        return learner.figures(pool, tested)
    kinds = sorted({file.defect_class for file in pool if file.defect_class})
    if len(kinds) < 2:
        raise TrainingError(
            f"{data.root} has one kind of defect: leaving it out leaves none to label.",
            remedy="Leave …-unseen out of --methods.",
        )
    found = {
        kind: learner.figures(
            [file for file in pool if file.defect_class != kind],
            [file for file in tested if file.defect_class in (None, kind)],
        )
        for kind in kinds
    }
    return _mean(list(found.values())) | {"kinds": found}


def halves(test: Sequence[LabelledFile]) -> tuple[list[LabelledFile], list[LabelledFile]]:
    """The test images that are there to be labelled, and those that are there to measure."""
    sides: tuple[list[LabelledFile], list[LabelledFile]] = ([], [])
    for file in test:
        sides[int(file.sha256[:2], 16) % 2].append(file)
    return sides


def take(
    pool: Sequence[LabelledFile], how: Labelling, seed: int, nearness: Sequence[float] | None = None
) -> list[LabelledFile]:
    """What is labelled of a pool, without masks if so. `nearness` says how near each one's score is
    to a threshold: those that are nearest come first, if any are to."""
    shuffled = np.random.default_rng([_SEED, seed]).permutation(len(pool)).tolist()
    if nearness is not None:
        shuffled.sort(key=lambda i: -nearness[i])
    if how.choice == "kind":
        kinds = sorted({file.defect_class for file in pool if file.defect_class})
        chosen = [
            i
            for kind in kinds
            for i in [i for i in shuffled if pool[i].defect_class == kind][: how.count]
        ]
    else:
        chosen = shuffled[: how.count]
    return [pool[i] if how.masks else replace(pool[i], mask=None) for i in chosen]


@dataclass(frozen=True)
class _Learner:
    data: Dataset
    champion: Bundle
    cache: FeatureCache
    how: Labelling
    seed: int
    steps: int | None
    reporter: Reporter
    drawings: Path

    def figures(
        self, pool: Sequence[LabelledFile], tested: Sequence[LabelledFile]
    ) -> dict[str, Any]:
        """As a benchmark writes them."""
        before = load_checkpoint(self.champion.read(CHECKPOINT))
        nearness = None
        if self.how.choice == "active":
            lines = self.champion.manifest.thresholds
            scored = score_features(before, self.cache, pool)
            nearness = [lines.nearness(score) for _, score, _ in scored]
        taken = take(pool, self.how, self.seed, nearness)
        if not any(file.verdict == "ng" for file in taken):
            raise TrainingError(
                f"No defect of {self.data.root} is among what would be labelled.",
                remedy="Leave labellings out of --methods, or label more.",
            )
        good = (*self.data.train, *(file for file in taken if file.verdict == "ok"))
        labels = Labels(
            good=good,
            defective=tuple(file for file in taken if file.verdict == "ng"),
            representative=frozenset(file.sha256 for file in self.data.train),
        )
        learning = Learning(seed=self.seed)
        if self.steps:
            learning = replace(learning, steps=self.steps, network_steps=self.steps)
        started = time.monotonic()
        candidate = train_candidate(
            before, self.champion.learned(), champion_method(self.champion), self.cache, labels,
            learning, self.reporter, Worker(), self.drawings,
        )  # fmt: skip
        found: dict[str, Any] = {
            "labels": len(taken),
            "before": self._measure(before, tested, self.champion.manifest.thresholds),
            "comparison": str(candidate.comparison),
            "learning_seconds": round(time.monotonic() - started, 1),
        }
        # A line would keep its champion where the labels speak against the candidate.
        refused = bool(candidate.comparison.worse)
        if refused:
            return found | {"refused": True}
        scores = candidate.good.fused(candidate.scorer)[candidate.fair(labels.representative)]
        _, thresholds = calibrate(scores, groups=min(candidate.groups, len(scores)))
        return found | self._measure(candidate.scorer, tested, thresholds)

    def _measure(
        self, scorer: Scorer, files: Sequence[LabelledFile], thresholds: Thresholds
    ) -> dict[str, float]:
        found = evaluate(score_features(scorer, self.cache, files), self.cache.source.size)
        return found.metrics | verdict_shares(found.scores, found.anomalous, thresholds)


def _mean(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of each metric, over the kinds left out; where a candidate was refused, as it was before."""
    after = [run["before"] if run.get("refused") else run for run in runs]
    names = set.intersection(*(set(run["before"]) for run in runs))
    return {
        "before": {name: float(np.mean([run["before"][name] for run in runs])) for name in names},
        "learning_seconds": round(sum(run["learning_seconds"] for run in runs), 1),
    } | {name: float(np.mean([run[name] for run in after])) for name in names}
