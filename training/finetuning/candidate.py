"""What a champion becomes by learning labels, tried against it on labels that neither has seen."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from training.backbones.features import FeatureCache
from training.calibration.thresholds import LEAST
from training.data.folders import LabelledFile
from training.engine.distributed import Worker
from training.errors import TrainingError
from training.evaluation.bootstrap import draws
from training.evaluation.comparison import Comparison, compare
from training.evaluation.metrics import image_metrics
from training.evaluation.scoring import Evaluation, evaluate, score_features
from training.finetuning.push_pull import PushPull, learn_labels
from training.methods.fusion import balance, count_what_learned, distances, with_discriminator
from training.networks.discriminator import Discriminator, DiscriminatorConfig
from training.networks.scorer import Reconstruction, Scorer
from training.progress import Reporter

HOLD_OUT = 0.2
# What is tried where the labels are to choose: times the alphas, and shares of the score.
ALPHAS = (0.3, 1.0, 3.0)
MIXES = (0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Learning(PushPull):
    """How labels are learned. What knows the labelled defects counts for `mix` of all else.

    With `choose`, the alphas and the mix are chosen on half of the labels, which takes several
    trainings more.
    """

    mix: float = 0.25
    choose: bool = False


@dataclass(frozen=True)
class Labels:
    """Labelled images, apart: what is trained on, and what champion and candidate are tried on."""

    good: tuple[LabelledFile, ...]
    defective: tuple[LabelledFile, ...]
    held_out: tuple[LabelledFile, ...]

    @property
    def normals(self) -> tuple[LabelledFile, ...]:
        """The good parts among what is held out."""
        return tuple(file for file in self.held_out if file.verdict == "ok")


@dataclass(frozen=True)
class Candidate:
    """A scorer that has learned labels, how it learned them, and how it did against the champion.

    `curve` is the loss of every step, `seconds` what the learning took.
    """

    scorer: Scorer
    learning: Learning
    comparison: Comparison
    curve: list[float]
    seconds: float


def train_candidate(
    champion: Scorer,
    cache: FeatureCache,
    labels: Labels,
    learning: Learning,
    reporter: Reporter,
    worker: Worker,
) -> Candidate:
    """Let a copy of the champion learn the labels, and compare both on those held out.

    Of several processes only the first returns. Raises TrainingError.
    """
    before = _evaluate(champion, cache, labels.held_out)
    started = time.monotonic()
    if learning.choose:
        learning = _choose(champion, cache, labels, learning, reporter, worker)
    scorer, curve = _learn(
        champion, cache, labels.good, labels.defective, learning, reporter, worker
    )
    worker.leave_to_the_first()
    seconds = time.monotonic() - started
    balance(scorer, cache, labels.normals)
    count_what_learned(scorer, learning.mix)
    after = _evaluate(scorer, cache, labels.held_out)
    return Candidate(scorer, learning, compare(before, after), curve, seconds)


def _learn(
    champion: Scorer,
    cache: FeatureCache,
    good: Sequence[LabelledFile],
    defective: Sequence[LabelledFile],
    learning: Learning,
    reporter: Reporter,
    worker: Worker,
) -> tuple[Scorer, list[float]]:
    # From images alone, a hidden layer would learn each of these few by heart.
    located = any(file.mask for file in defective)
    hidden = DiscriminatorConfig.hidden if located else 0
    torch.manual_seed(learning.seed)
    knowing = Discriminator(DiscriminatorConfig(champion.shape[0], hidden))
    scorer = with_discriminator(copy.deepcopy(champion), knowing)
    return scorer, learn_labels(scorer, cache, good, defective, learning, reporter, worker)


def _choose(
    champion: Scorer,
    cache: FeatureCache,
    labels: Labels,
    learning: Learning,
    reporter: Reporter,
    worker: Worker,
) -> Learning:
    """The alphas and the mix by which one half of the defects, learned, tells the other from good
    parts best by image AUROC; the usual ones where they are as good, as far as these can show:
    within one standard error of the difference."""
    learned, tried = _halves(labels.defective)
    if not learned or not tried:
        reporter.say("Too few labels to choose by; the usual alphas and mix are kept.")
        return learning
    files = (*labels.normals, *tried)
    anomalous = np.array([file.verdict == "ng" for file in files])
    once_and_drawn = np.concatenate([np.ones((1, len(files))), draws(anomalous)])
    found = {}
    rebuilds = any(isinstance(part, Reconstruction) for part in champion.parts)
    for times in ALPHAS if rebuilds else (1.0,):
        alphas = replace(
            learning,
            alpha_pixels=times * learning.alpha_pixels,
            alpha_images=times * learning.alpha_images,
        )
        scorer, _ = _learn(champion, cache, labels.good, learned, alphas, reporter, worker)
        balance(scorer, cache, labels.normals)
        distance_PBHW = distances(scorer, cache, files)
        for mix in MIXES:
            count_what_learned(scorer, mix)
            scores = scorer.score.scores(scorer.join(distance_PBHW)).numpy()
            measured = image_metrics(scores, anomalous, once_and_drawn)
            found[replace(alphas, mix=mix)] = measured["image_auroc"]
    best = max(found, key=lambda tried: float(found[tried][0]))
    if learning in found:
        behind = found[best] - found[learning]
        if behind[0] <= behind[1:].std():
            best = learning
    reporter.say(
        f"Chosen on {len(tried)} labels held out: alpha {best.alpha_pixels:g} with masks, "
        f"{best.alpha_images:g} without, mix {best.mix:g}."
    )
    return best


def _halves(
    files: Sequence[LabelledFile],
) -> tuple[tuple[LabelledFile, ...], tuple[LabelledFile, ...]]:
    """Every second, kind by kind and by content hash, and the others."""
    ordered = sorted(files, key=lambda file: (file.defect_class or "", file.sha256))
    return tuple(ordered[::2]), tuple(ordered[1::2])


def split_labels(files: Sequence[LabelledFile], seen: frozenset[str]) -> Labels:
    """Hold out a fifth of each kind, by content hash, among what the champion has not seen; of
    defects whose kinds have one label each, a fifth of all.

    Raises TrainingError when a side would be left empty.
    """
    held: set[str] = set()
    for kind in {(file.verdict, file.defect_class) for file in files}:
        of_kind = [file for file in files if (file.verdict, file.defect_class) == kind]
        held |= _held_out(of_kind, seen, LEAST if kind[0] == "ok" else 1)
    defective = [file for file in files if file.verdict == "ng"]
    if not any(file.sha256 in held for file in defective):
        held |= _held_out(defective, seen, 1)
    labels = Labels(
        good=tuple(f for f in files if f.verdict == "ok" and f.sha256 not in held),
        defective=tuple(f for f in files if f.verdict == "ng" and f.sha256 not in held),
        held_out=tuple(f for f in files if f.sha256 in held),
    )
    for what, count, least in (
        ("good parts to train on", len(labels.good), LEAST),
        ("defective parts to train on", len(labels.defective), 1),
        ("good parts that the champion has not seen", len(labels.normals), LEAST),
        (
            "defective parts that the champion has not seen",
            len(labels.held_out) - len(labels.normals),
            1,
        ),
    ):
        if count < least:
            raise TrainingError(
                f"There are {count} {what}, and {least} are needed to train and compare.",
                remedy="Label at least two defective parts, and name the good parts that the "
                "champion was fitted on with --data.",
            )
    return labels


def _held_out(files: Sequence[LabelledFile], seen: frozenset[str], least: int) -> set[str]:
    """Content hashes of a fifth of files, of half of them at most."""
    fresh = sorted(file.sha256 for file in files if file.sha256 not in seen)
    wanted = max(math.ceil(HOLD_OUT * len(files)), least)
    return set(fresh[: min(wanted, len(files) // 2)])


def _evaluate(scorer: Scorer, cache: FeatureCache, files: Sequence[LabelledFile]) -> Evaluation:
    return evaluate(score_features(scorer, cache, files), cache.source.size)
