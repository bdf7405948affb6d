"""What a branch learns from: good parts, their features as it sees them, and for how long."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.bundle import Mirror
from training.backbones.features import FeatureCache
from training.data.folders import LabelledFile
from training.data.mirrored import mirrored
from training.engine.distributed import Worker
from training.engine.loop import Schedule, TrainingState
from training.engine.training_states import TrainingStates
from training.networks.scorer import Scorer, Standardise
from training.networks.warp import inside
from training.networks.whitening import Whitening
from training.progress import Reporter

ScheduleName = Literal["short", "paper"]
T = TypeVar("T")

BATCH = 8
# Parts that the statistics of all cells together are estimated from, at most: each has hundreds.
STATISTICS_PARTS = 200
# How often a good part of another day is learned at most: one alone must not count as much as
# hundreds, since it may be a defective one that somebody called ok.
MOST_REPEATED = 16


@dataclass(frozen=True)
class PushPull:
    """How labelled defects are learned. `alpha_*` weigh the push against the pull; the `k` largest
    cells stand for an image."""

    alpha_pixels: float = 0.3
    alpha_images: float = 0.03
    k: int = 10
    steps: int = 300
    learning_rate: float = 5e-4


@dataclass(frozen=True)
class HeldOut:
    """Good parts and labelled defects that are not learned. `errors` takes, for each network that
    learns from labels, how badly it tells them apart by the number of steps that were learned."""

    good: Sequence[LabelledFile]
    defective: Sequence[LabelledFile]
    errors: list[dict[int, float]] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class TrainContext:
    """Good parts and labelled defects whose features are in `cache`, and how to learn them.

    `start` is a scorer to go on from, where the good parts that it learned are not among these: its
    statistics are kept, its memory grows, its networks are trained further. `steps` overrides every
    schedule's length. `roi` (H, W) is 1 on the cells of the finest map that are inspected, and 0 on
    the others; None inspects all. `states` keep what networks have learned, where a training is to
    go on after an interruption. `worker` is this process among those that
    learn together. Without `standardised`, features are learned as the backbone gives them. Good
    parts with the hashes `mirrored` are learned in `mirrors`, too, whose features are in `cache`.
    Those of `another_day`, by hash, count as much as all others together, as far as `MOST_REPEATED`
    allows. How well `held_out` labels are told apart is measured while others are learned.
    """

    files: Sequence[LabelledFile]
    cache: FeatureCache
    seed: int = 0
    defective: Sequence[LabelledFile] = ()
    push_pull: PushPull = dataclasses.field(default_factory=PushPull)
    start: Scorer | None = None
    schedule: ScheduleName = "short"
    steps: int | None = None
    roi: Tensor | None = None
    standardised: bool = True
    mirrors: tuple[Mirror, ...] = ()
    mirrored: frozenset[str] = frozenset()
    another_day: frozenset[str] = frozenset()
    held_out: HeldOut | None = None
    reporter: Reporter = dataclasses.field(default_factory=Reporter)
    states: TrainingStates | None = None
    worker: Worker = dataclasses.field(default_factory=Worker)

    @cached_property
    def learned(self) -> tuple[LabelledFile, ...]:
        """The good parts and their mirror images; those of another day several times, so that they
        count as much as all others."""
        usual: list[LabelledFile] = []
        of_another_day: list[LabelledFile] = []
        for file in self.files:
            several = of_another_day if file.sha256 in self.another_day else usual
            mirrors = self.mirrors if file.sha256 in self.mirrored else ()
            several += (file, *(mirrored(file, mirror) for mirror in mirrors))
        if not of_another_day:
            return tuple(usual)
        times = round(len(usual) / len(of_another_day))
        return (*usual, *of_another_day * min(max(1, times), MOST_REPEATED))

    def always_shown(self) -> Tensor | None:
        """1 on cells (H, W) that every aligned good part shows; None where none is aligned."""
        layout = self.cache.layout
        if layout.extent is None:
            return None
        transform_B4 = self.cache.transforms([file.sha256 for file in self.files])
        shown_HW = inside(layout.grid, transform_B4, layout.extent).all(0).float()
        return shown_HW * self.start.always_HW if self.start else shown_HW

    def view(self, number: int) -> "ViewContext":
        """The same, of the map with this number in the features' layout."""
        return ViewContext(self, number)

    def only(
        self,
        files: Sequence[LabelledFile],
        defective: Sequence[LabelledFile] = (),
        *,
        fold: int | str | None = None,
    ) -> "TrainContext":
        """The same of other parts, without progress; and without checkpoints, unless they are
        those that a `fold` learns."""
        states = self.states.of_fold(fold) if self.states and fold is not None else None
        return dataclasses.replace(
            self, files=files, defective=defective, states=states, reporter=Reporter()
        )

    def state(self, branch: int, schedule: Schedule, purpose: str = "") -> TrainingState | None:
        """The checkpoint of a branch's network, where any is kept."""
        return self.states.state(branch, schedule, purpose) if self.states else None


@dataclass(frozen=True)
class ViewContext:
    """What a branch sees of the parts of `context`: one map of their features, standardised, and
    whitened where there is a `whitening`."""

    context: TrainContext
    number: int
    whitening: Whitening | None = None
    plain: "ViewContext | None" = None  # the same without the whitening

    def whitened(self, whitening: Whitening) -> "ViewContext":
        """The same of whitened features."""
        return dataclasses.replace(self, whitening=whitening, plain=self)

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean (C) and covariance (C, C) of raw features over all cells of an even choice of the
        parts."""
        if self.plain:
            return self.plain._moments
        channels = self.raw_shape[0]
        total = torch.zeros(channels, dtype=torch.float64)
        products, cells = torch.zeros(channels, channels, dtype=torch.float64), 0
        for file in evenly(self.context.learned, STATISTICS_PARTS):
            tokens_LC = self._raw([file.sha256])[0].flatten(1).T
            total += tokens_LC.sum(0).double()
            products += (tokens_LC.T @ tokens_LC).double()
            cells += len(tokens_LC)
        mean = total / cells
        return mean.float(), (products / cells - torch.outer(mean, mean)).float()

    @cached_property
    def standardise(self) -> Standardise:
        """To zero mean and unit deviation over these parts, or as they are."""
        if self.context.start:
            kept = self.context.start.standardise[self.number]
            assert isinstance(kept, Standardise)
            return kept
        if not self.context.standardised:
            return Standardise.blank(self.raw_shape[0])
        mean_C, covariance_CC = self._moments
        return Standardise(mean_C, covariance_CC.diagonal().clamp_min(0).sqrt())

    @cached_property
    def covariance(self) -> Tensor:
        """Of the features, over all cells, (K, K)."""
        if self.whitening:
            return torch.eye(self.whitening.config.kept)
        deviation = self.standardise.std.flatten()
        return self._moments[1] / torch.outer(deviation, deviation)

    def inspected(self) -> Tensor:
        """Which cells (H, W) of this map are inspected: those that the finest map has some of."""
        grid = self.raw_shape[1:]
        if self.context.roi is None:
            return torch.ones(grid, dtype=torch.bool)
        return F.adaptive_max_pool2d(self.context.roi[None], grid)[0] > 0

    @cached_property
    def components(self) -> tuple[Tensor, Tensor]:
        """The variances (K) along the principal directions (K, K) of the features, ascending."""
        variance, vectors = torch.linalg.eigh(self.covariance.double())
        return variance, vectors

    @property
    def raw_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the backbone's features of one part."""
        return self.context.cache.layout.shapes[self.number]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, H, W) of the features of one part as they are learned."""
        channels, *grid = self.raw_shape
        return (self.whitening.config.kept if self.whitening else channels, grid[0], grid[1])

    def features(self, indices: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """Features (B, K, H, W) of the parts with these indices."""
        return self.named([self.context.learned[i].sha256 for i in indices])

    def named(self, names: Sequence[str]) -> Tensor:
        """The same by name in the cache, of images made from the parts', too."""
        standard: Tensor = self.standardise(self._raw(names))
        return self.whitening(standard) if self.whitening else standard

    def batches(self, most: int | None = None) -> Iterator[Tensor]:
        """The features of all parts, or of `most` of them, one batch after the other."""
        files = self.context.learned if most is None else evenly(self.context.learned, most)
        names = [file.sha256 for file in files]
        for start in range(0, len(names), BATCH):
            yield self.named(names[start : start + BATCH])

    def _raw(self, names: Sequence[str]) -> Tensor:
        return self.context.cache.maps(names, self.number)


class Learner(Protocol):
    """Learns one branch of a scorer; the second value is the loss of every step, if there were any.

    `number` is the branch's place in the scorer: two alike differ by what follows from it. `start`
    is the branch of the scorer to go on from, if there is one.
    """

    def __call__(
        self, context: ViewContext, number: int, start: nn.Module | None = None
    ) -> tuple[nn.Module, list[float]]: ...


def evenly(items: Sequence[T], most: int) -> Sequence[T]:
    """`most` of the items at most, evenly over their order."""
    if len(items) <= most:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]
