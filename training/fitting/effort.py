"""What training takes on this machine, for whoever is asked how long the next one will take."""

import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from models.appearance import Appearances, appearances
from models.bundle import Effort
from training.backbones.features import FeatureCache, FeatureSource
from training.data.folders import LabelledFile
from training.engine.distributed import Worker
from training.engine.step import WARM
from training.methods.push_pull import LearnDefects
from training.methods.train_context import PushPull, TrainContext
from training.progress import Advance, Reporter

_TRIAL_STEPS = WARM + 3
_TRIAL_IMAGES = 4
_LOOKED_AT = 300
FOLDS = 5  # of a retraining


def foresee(
    cache: FeatureCache, good: Sequence[LabelledFile], fit_seconds: float, worker: Worker
) -> Effort:
    """What a retraining will take that learns as many good parts: what the fit took, and what
    learning defects takes besides, of which a few steps are tried."""
    few = tuple(good[:_TRIAL_IMAGES])
    clock = _Clock()
    context = TrainContext(
        few, cache, defective=[replace(file, verdict="ng") for file in few],
        push_pull=PushPull(steps=_TRIAL_STEPS), reporter=clock, worker=worker,
    )  # fmt: skip
    deepest = len(cache.layout.shapes) - 1
    LearnDefects()(context.view(deepest), 0)
    times = 2 + FOLDS  # the candidate, its length, and the folds that it is compared by
    return measure(cache, good, fit_seconds + times * clock.seconds_per_step * PushPull.steps)


class _Clock(Reporter):
    """Shows nothing, and notes what a step of each bar takes, without the first ones, which make
    the device ready."""

    def __init__(self) -> None:
        self.seconds_per_step = 0.0

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        times: list[float] = []
        yield lambda done, note: times.append(time.monotonic())
        took = np.diff(times)[WARM:]
        self.seconds_per_step += float(np.median(took))


def measure(
    cache: FeatureCache, files: Sequence[LabelledFile], retrain_seconds: float | None
) -> Effort:
    """Of a retraining that took so long; what features cost is tried on a few images."""
    few = files[:_TRIAL_IMAGES]
    started = time.monotonic()
    cache.compute(np.stack([cache.source.read(file.image) for file in few]))
    return Effort(
        seconds_per_image=round((time.monotonic() - started) / len(few), 4),
        retrain_seconds=None if retrain_seconds is None else round(retrain_seconds, 1),
        peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )


def look(source: FeatureSource, files: Sequence[LabelledFile]) -> Appearances:
    """What light and lens made of good parts, of an even choice where there are many."""
    every = -(-len(files) // _LOOKED_AT)
    return appearances(source.read(file.image) for file in files[::every])
