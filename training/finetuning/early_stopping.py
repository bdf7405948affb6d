"""For how many steps labels are learned: until held-out ones are told apart no better."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.data.folders import LabelledFile
from training.methods.registry import Method
from training.methods.train_context import HeldOut, TrainContext
from training.networks.scorer import ScoreSettings

# Of fewer labelled defects a fifth says nothing.
LEAST_LABELLED = 10


@dataclass(frozen=True)
class Validated:
    """`errors` on `held_out` labels by the number of steps learned, as shares of the first; `steps`
    of `at_most` are to be learned."""

    errors: dict[int, float]
    held_out: int
    steps: int
    at_most: int

    def __str__(self) -> str:
        text = f"Labels are learned for {self.steps} of {self.at_most} steps"
        if self.steps == self.at_most:
            return f"{text}: {self.held_out} held-out ones are told apart better up to the end."
        return f"{text}: after these {self.held_out} held-out ones are told apart no better."


def validate_steps(
    method: Method,
    context: TrainContext,
    good: tuple[Sequence[LabelledFile], NDArray[np.int64]],
    defective: tuple[Sequence[LabelledFile], NDArray[np.int64]],
    settings: ScoreSettings | None = None,
) -> Validated | None:
    """Learn the labels without the first fold of each, which says for how many steps to learn all.

    `good` and `defective` come with their folds. None where the labels are too few, or where
    nothing learns them. Raises TrainingError.
    """
    chosen = [n for n, branch in enumerate(method.branches) if branch.learns_labels]
    if not chosen or len(context.defective) < LEAST_LABELLED:
        return None
    held = HeldOut(_of(*good, held=True), _of(*defective, held=True))
    learned = context.only(_of(*good, held=False), _of(*defective, held=False), fold="validation")
    method.only(chosen).learn(replace(learned, held_out=held, reporter=context.reporter), settings)
    errors = _mean(held.errors)
    best = min(errors, key=lambda step: (errors[step], -step))
    return Validated(errors, len(held.good) + len(held.defective), best, context.push_pull.steps)


def _of(
    files: Sequence[LabelledFile], folds: NDArray[np.int64], *, held: bool
) -> tuple[LabelledFile, ...]:
    return tuple(f for f, fold in zip(files, folds, strict=True) if (fold == 0) == held)


def _mean(found: Sequence[dict[int, float]]) -> dict[int, float]:
    """Of several networks, each as a share of its first; one that ended early stays at its last."""
    steps = sorted(set().union(*found))
    shares = []
    for errors in found:
        first, last = max(next(iter(errors.values())), 1e-6), list(errors.values())[-1]
        shares.append([errors.get(step, last) / first for step in steps])
    return dict(zip(steps, np.mean(shares, axis=0).tolist(), strict=True))
