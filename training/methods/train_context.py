"""What is learned from: good parts, their features, and how long and where to learn."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training.backbones.features import ChannelStatistics, FeatureCache
from training.data.folders import LabelledFile
from training.engine.distributed import Worker
from training.engine.loop import Schedule, TrainingState
from training.networks.scorer import Standardise
from training.networks.whitening import Whitening
from training.progress import Reporter

ScheduleName = Literal["short", "paper"]

BATCH = 8


@dataclass(frozen=True)
class Lesson:
    """Good parts, whose features are in `cache` and vary by `statistics`, and how to learn them.

    `steps` overrides every schedule's length. `state` gives the checkpoint of a part, by the
    part's number and its schedule, where a training is to be kept. `worker` is this process among
    those that learn it together. With a `whitening`, what is learned is whitened features.
    """

    files: Sequence[LabelledFile]
    cache: FeatureCache
    statistics: ChannelStatistics
    seed: int = 0
    schedule: ScheduleName = "short"
    steps: int | None = None
    reporter: Reporter = dataclasses.field(default_factory=Reporter)
    state: Callable[[int, Schedule], TrainingState] | None = None
    worker: Worker = dataclasses.field(default_factory=Worker)
    whitening: Whitening | None = None

    def whitened(self, whitening: Whitening) -> "Lesson":
        """The same lesson, of features that are whitened."""
        return dataclasses.replace(self, whitening=whitening)

    @cached_property
    def standardise(self) -> Standardise:
        """To zero mean and unit deviation of these parts."""
        mean, std = self.statistics.mean, self.statistics.std
        return Standardise(torch.from_numpy(mean), torch.from_numpy(std))

    @cached_property
    def covariance(self) -> Tensor:
        """Of the features, over all cells, (K, K)."""
        if self.whitening:
            return torch.eye(self.whitening.config.kept)
        deviation = self.standardise.std.flatten()
        return torch.from_numpy(self.statistics.covariance) / torch.outer(deviation, deviation)

    @cached_property
    def raw_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the backbone's features of one part."""
        channels, height, width = self.cache[self.files[0].sha256].shape
        return channels, height, width

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, H, W) of the features of one part as they are learned."""
        channels, *grid = self.raw_shape
        return (self.whitening.config.kept if self.whitening else channels, *grid)

    def features(self, indices: Sequence[int]) -> Tensor:
        """Standardised features (B, K, H, W) of the files with these indices, or whitened ones."""
        return self.named([self.files[i].sha256 for i in indices])

    def named(self, names: Sequence[str]) -> Tensor:
        """The same by name in the cache, of images made from the files', too."""
        raw = np.stack([self.cache[name] for name in names])
        standard: Tensor = self.standardise(torch.from_numpy(raw))
        return self.whitening(standard) if self.whitening else standard

    def batches(self) -> Iterator[Tensor]:
        """The features of all files, one batch after the other."""
        for start in range(0, len(self.files), BATCH):
            yield self.features(range(start, min(start + BATCH, len(self.files))))


class Learner(Protocol):
    """Learns one part of a scorer; the second value is the loss of every step, if there were any.

    `number` is the part's place in the scorer: two alike parts differ by what follows from it.
    """

    def __call__(self, lesson: Lesson, number: int) -> tuple[nn.Module, list[float]]: ...
