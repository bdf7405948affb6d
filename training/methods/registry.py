"""Named methods: what `fit --preset` and `benchmark --methods` can be told.

All of them learn from the same features of the same good parts, and turn distances into a score
and a heatmap in the same way; so they differ in nothing but what they are named for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from training.backbones.views import ViewName
from training.engine.loop import Schedule
from training.errors import TrainingError
from training.methods.branches import (
    GaussianDistance,
    ImageMemory,
    PatchMemory,
    PositionalKnn,
    TrainReconstruction,
    TrainRotation,
    Whiten,
)
from training.methods.push_pull import LearnDefects
from training.methods.train_context import Learner, TrainContext, ViewContext
from training.networks.adtr import Adtr, AdtrConfig
from training.networks.convolutional import ConvolutionalAutoencoder, ConvolutionalConfig
from training.networks.positions import even_part
from training.networks.scorer import BranchInput, HeatmapScore, Scorer, ScoreSettings
from training.networks.whitening import Whitening

Shape = tuple[int, int, int]
Family = Literal["positions", "anywhere", "networks"]

SLOW = Schedule(steps=800, batch=8, learning_rate=1e-3)
QUICK = Schedule(steps=800, batch=8, learning_rate=2e-3)
BRIEF = Schedule(steps=400, batch=8, learning_rate=2e-3)


@dataclass(frozen=True)
class Branch:
    """One source of distances: a learner, the view that it sees, and its whitening, if any.

    `weight` is its share where there are several, relative to the others'.
    """

    name: str
    learn: Learner
    view: ViewName = "all"
    whiten: Whiten | None = None
    weight: float = 1.0

    @property
    def family(self) -> Family:
        """What it compares a part with: good parts at the same position, patches from anywhere, or
        what a network has learned. Families are kept or left out as a whole."""
        if self.trains:
            return "networks"
        return "anywhere" if isinstance(self.learn, PatchMemory) else "positions"

    @property
    def trains(self) -> bool:
        """Whether it has a network, trained by descent in minutes rather than seconds."""
        return isinstance(self.learn, TrainReconstruction | TrainRotation)

    @property
    def sees_whole_images(self) -> bool:
        """Whether it compares images as a whole, so that no region of them can be left out."""
        pooled = self.whiten is not None and self.whiten.pooled
        return pooled or isinstance(self.learn, ImageMemory | TrainRotation)

    @property
    def learns_labels(self) -> bool:
        """Whether it learns labelled defects for some steps; the paper's own training is too long
        to be repeated."""
        learn = self.learn
        return isinstance(learn, LearnDefects) or (
            isinstance(learn, TrainReconstruction) and not learn.paper
        )

    @property
    def remembers(self) -> bool:
        """Whether all that it has are statistics and memories of good parts."""
        return not self.trains and not isinstance(self.learn, LearnDefects)


@dataclass(frozen=True)
class Method:
    """Branches that are learned one after the other, and whose distances are fused.

    With `weighted`, families of branches that do not help to find defects drawn on good parts are
    left out. Without `standardised`, branches see features as the backbone gives them.
    """

    about: str
    branches: tuple[Branch, ...]
    weighted: bool = False
    standardised: bool = True
    sees: tuple[ViewName, ...] = ()
    # Of its branches, their numbers in the method that it is a part of.
    numbers: tuple[int, ...] = ()

    @property
    def views(self) -> tuple[ViewName, ...]:
        """The views that its branches see, each once; of a part of a method, the whole one's."""
        return self.sees or tuple(dict.fromkeys(branch.view for branch in self.branches))

    @property
    def learns_anomalies(self) -> bool:
        """Whether a branch has a network: a memory alone has nothing to learn with."""
        return any(branch.trains for branch in self.branches)

    def only(self, kept: Sequence[int]) -> "Method":
        """The method of some of its branches, by number, with the views of all."""
        numbers = self.numbers or tuple(range(len(self.branches)))
        return replace(
            self,
            branches=tuple(self.branches[n] for n in kept),
            sees=self.views,
            numbers=tuple(numbers[n] for n in kept),
        )

    def named(self, names: Sequence[str]) -> "Method":
        """The method of the branches with these names, as if it had no others."""
        known = {branch.name: branch for branch in self.branches}
        return replace(self, branches=tuple(known[name] for name in names), sees=self.views)

    def learn(
        self, context: TrainContext, settings: ScoreSettings | None = None
    ) -> tuple[Scorer, list[float]]:
        """A scorer that has learned, and the loss of every step of all its branches.

        Where there are several branches, their fusion is yet to be fitted. Raises TrainingError.
        """
        context = replace(context, standardised=self.standardised)
        views = {name: context.view(number) for number, name in enumerate(self.views)}
        whitenings: dict[tuple[ViewName, Whiten], int] = {}
        modules: list[Whitening] = []
        learned, inputs, curve = [], [], []
        for number, branch in enumerate(self.branches):
            view = views[branch.view]
            source = BranchInput(view.number)
            if branch.whiten:
                key = (branch.view, branch.whiten)
                if key not in whitenings:
                    whitenings[key] = len(modules)
                    modules.append(self._whitening(branch, number, context, view))
                source = BranchInput(view.number, whitenings[key])
                view = view.whitened(modules[whitenings[key]])
            module, losses = branch.learn(view, number, self._start(number, context))
            learned.append(module)
            inputs.append(source)
            curve += losses
        layout = context.cache.layout
        size = context.cache.source.size
        score = HeatmapScore(size.height // layout.grid[0], layout.grid, settings)
        standardise = [view.standardise for view in views.values()]
        scorer = Scorer(
            layout, standardise, modules, learned, inputs, score, context.roi,
            context.always_shown(),
        )  # fmt: skip
        weights = torch.tensor([branch.weight for branch in self.branches])
        scorer.fusion.weight_P.copy_(weights / weights.sum())
        return scorer.eval(), curve

    def with_defects(self) -> "Method":
        """The method with discriminators of labelled defects, in all but its finest view, which
        shows edges rather than what they are of."""
        known = tuple(
            Branch(f"{DEFECTS}/{view}", LearnDefects(), view)
            for view in self.views
            if view != "fine" or len(self.views) == 1
        )
        return replace(self, branches=(*self.branches, *known), sees=self.views)

    def _start(self, number: int, context: TrainContext) -> nn.Module | None:
        """The branch that a branch goes on from, where there is one."""
        start, own = context.start, self.numbers[number] if self.numbers else number
        return start.branches[own] if start and own < len(start.branches) else None

    def _whitening(
        self, branch: Branch, number: int, context: TrainContext, view: ViewContext
    ) -> Whitening:
        assert branch.whiten
        own = self.numbers[number] if self.numbers else number
        if context.start and own < len(context.start.inputs):
            source = context.start.inputs[own].whitening
            if source is not None:
                kept = context.start.whitenings[source]
                assert isinstance(kept, Whitening)
                return kept
        return branch.whiten(view)


def method(name: str) -> Method:
    """The method of this name. Raises TrainingError."""
    if name not in METHODS:
        raise TrainingError(
            f"There is no method {name}.", remedy=f"Choose one of {', '.join(METHODS)}."
        )
    return METHODS[name]


def _adtr(
    short: Schedule,
    *,
    jitter: float = 0.0,
    windows: bool = False,
    paper: bool = False,
    **settings: Any,
) -> TrainReconstruction:
    def network(shape: Shape) -> nn.Module:
        _, height, width = shape
        window = even_part(math.gcd(height, width)) if windows else 0
        config = AdtrConfig(*shape, **settings, window=window if window < height else 0)
        if config.masked // 2 >= max(config.height, config.width) // 2:
            raise TrainingError(
                f"Masking {config.masked} cells around each leaves nothing of a grid of "
                f"{config.height}×{config.width}.",
                remedy="Choose a finer --grid.",
            )
        return Adtr(config)

    return TrainReconstruction(network, short, jitter, paper)


def _convolutional(*widths: int) -> TrainReconstruction:
    def network(shape: Shape) -> nn.Module:
        return ConvolutionalAutoencoder(ConvolutionalConfig(shape[0], widths))

    return TrainReconstruction(network, SLOW)


# What branches that know labelled defects are called.
DEFECTS = "known-defects"

_SMALL: dict[str, Any] = {"layers": 2, "dimension": 128, "feedforward": 512}
_ALL = 1_000_000  # channels

# The 100 directions in which good parts vary most, whitened at each position, or alike everywhere.
POSITIONAL = Whiten(100, components=True)
EVERYWHERE = Whiten(100, positional=False, components=True)
# The same for the default's views, with covariances shrunk so that few parts do.
_SIDE = 48
FINE, COARSE = (Whiten(kept, components=True, per_side=_SIDE, shrink=True) for kept in (48, 96))
# Chosen on CIFAR-10's training images, those of other classes as anomalies.
ROTATION_WEIGHT = 0.5

_ADTR_WHITENED = _adtr(BRIEF, windows=True, **_SMALL)


def _one(about: str, learn: Learner, whiten: Whiten | None = None, **more: Any) -> Method:
    return Method(about, (Branch("", learn, whiten=whiten, **more),))


_QUICK = (
    Branch("positional-knn/fine", PositionalKnn(_SIDE), "fine", FINE),
    Branch("positional-knn/middle", PositionalKnn(_SIDE), "middle", COARSE),
    Branch("positional-knn/deep", PositionalKnn(_SIDE), "deep", COARSE),
    Branch("patch-memory/middle", PatchMemory(2000, coreset=True), "middle", EVERYWHERE),
    Branch("patch-memory/deep", PatchMemory(1000, coreset=True), "deep", EVERYWHERE),
)

METHODS: dict[str, Method] = {
    "quick": Method(
        "nearest good parts at each position in three views, and patches from anywhere: no "
        "training",
        _QUICK,
        weighted=True,
    ),
    "best": Method(
        "`quick` with ADTR on the whitened deepest view",
        (*_QUICK, Branch("adtr-whitened/deep", _ADTR_WHITENED, "deep", COARSE)),
        weighted=True,
    ),
    "paper": Method(
        "ADTR as the paper has it: features as they come, random weights, 500 epochs",
        (Branch("", _adtr(SLOW, paper=True, strict=True)),),
        standardised=False,
    ),
    "adtr": _one("ADTR with the paper's size, 4+4 layers, 256 wide, and a start of our own",
                 _adtr(SLOW)),
    "adtr-whitened": _one("small ADTR (2+2 layers, 128 wide) on whitened features",
                          _ADTR_WHITENED, POSITIONAL),
    "positional-knn": _one("the nearest good part at each position, of whitened features",
                           PositionalKnn(), POSITIONAL),
    "patch-memory": _one("the nearest patch of good parts, of features whitened alike everywhere",
                         PatchMemory(8000, coreset=True), EVERYWHERE),
    # The paper's figure 1 and its tables, on a small network.
    "adtr-small": _one("small ADTR on plain features", _adtr(QUICK, **_SMALL)),
    "no-query": _one("`adtr-small` without its query", _adtr(QUICK, query="none", **_SMALL)),
    "no-attention": _one(
        "`adtr-small`, whose tokens see themselves alone",
        _adtr(QUICK, attention=False, query="target", **_SMALL),
    ),
    "last-stage": _one(
        "`adtr-small` on the backbone's last stage", _adtr(QUICK, **_SMALL), view="last"
    ),
    "cnn": _one("convolutional autoencoder of features", _convolutional(256, 64)),
    "pixel-cnn": _one(
        "convolutional autoencoder of pixels", _convolutional(32, 64, 128, 128), view="pixels"
    ),
    "uniad": _one(
        "`adtr-small` with UniAD's neighbour mask and jitter",
        _adtr(QUICK, jitter=20, masked=7, **_SMALL),
    ),
    # What users would pick instead.
    "knn": _one("k-NN on 8,000 random vectors", PatchMemory(8000)),
    "patchcore": Method(
        "PatchCore: neighbourhoods of two middle stages as they come, a coreset of 8,000",
        (Branch("", PatchMemory(8000, coreset=True), "middle"),),
        standardised=False,
    ),
    "rotation": Method(
        "`pooled-gaussian`, fused with how surely a part is seen to be upright",
        (
            Branch("pooled-gaussian", GaussianDistance(), whiten=Whiten(_ALL, pooled=True)),
            Branch("rotation", TrainRotation(), weight=ROTATION_WEIGHT),
        ),
    ),
    "image-knn": Method(
        "the ten most similar good images, by the backbone's last stage",
        (Branch("", ImageMemory(), "last"),),
        standardised=False,
    ),
    "padim": _one("PaDiM: a Gaussian for each position", GaussianDistance(), Whiten(100)),
    "positional-gaussian": _one(
        "a Gaussian for each position, along principal components", GaussianDistance(), POSITIONAL
    ),
    "gaussian": _one("one Gaussian for all positions", GaussianDistance(),
                     Whiten(_ALL, positional=False)),
    "pooled-gaussian": _one("one Gaussian of whole images", GaussianDistance(),
                            Whiten(_ALL, pooled=True)),
}  # fmt: skip
DEFAULT = "quick"
