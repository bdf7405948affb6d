"""Named methods: what `fit --preset` and `benchmark --methods` can be told.

All of them learn from the same features of the same good parts, and turn distances into a score
and a heatmap in the same way; so they differ in nothing but what they are named for.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from training.engine.loop import Schedule
from training.errors import TrainingError
from training.methods.branches import Measure, Orient, Rebuild, Recall, Remember, Whiten
from training.methods.train_context import Learner, Lesson
from training.networks.adtr import Adtr, AdtrConfig
from training.networks.convolutional import ConvolutionalAutoencoder, ConvolutionalConfig
from training.networks.places import even_part
from training.networks.scorer import HeatmapScore, Scorer, ScoreSettings

Shape = tuple[int, int, int]
# What a method sees: the backbone's chosen stages, the last of them, or the pixels themselves.
Sight = Literal["stages", "last", "pixels"]

SLOW = Schedule(steps=800, batch=8, learning_rate=1e-3)
QUICK = Schedule(steps=800, batch=8, learning_rate=2e-3)
BRIEF = Schedule(steps=400, batch=8, learning_rate=2e-3)


@dataclass(frozen=True)
class Part:
    """What learns to measure distances, and how the features that it sees are whitened, if so.

    `name` is what it is called where there are several, `counts` what it counts for there.
    """

    learn: Learner
    whiten: Whiten | None = None
    name: str = ""
    counts: float = 1.0


@dataclass(frozen=True)
class Method:
    """Parts that are learned one after the other, and whose distances are joined. With `weighed`,
    what they count for is chosen by defects drawn on good parts, unless they have learned such."""

    about: str
    parts: tuple[Part, ...]
    sight: Sight = "stages"
    weighed: bool = False

    @property
    def learns_anomalies(self) -> bool:
        """Whether a part has a network: what remembers alone has nothing to learn with."""
        return any(isinstance(part.learn, Rebuild | Orient) for part in self.parts)

    def learn(
        self, lesson: Lesson, settings: ScoreSettings | None = None
    ) -> tuple[Scorer, list[float]]:
        """A scorer that has learned, and the loss of every step of all its parts.

        Where there are several parts, they are yet to be balanced. Raises TrainingError.
        """
        views: dict[Whiten | None, Lesson] = {None: lesson}
        learned, curve = [], []
        for number, part in enumerate(self.parts):
            if part.whiten and part.whiten not in views:
                views[part.whiten] = lesson.whitened(part.whiten(lesson))
            module, losses = part.learn(views[part.whiten], number)
            learned.append(module)
            curve += losses
        whitenings = [view.whitening for view in views.values() if view.whitening]
        sees = [list(views).index(part.whiten) for part in self.parts]
        score = HeatmapScore(lesson.cache.source.size.height // lesson.shape[1], settings)
        scorer = Scorer(lesson.raw_shape, lesson.standardise, whitenings, learned, sees, score)
        scorer.weight_P.copy_(torch.tensor([part.counts for part in self.parts]))
        return scorer.eval(), curve


def method(name: str) -> Method:
    """The method of this name. Raises TrainingError."""
    if name not in METHODS:
        raise TrainingError(
            f"There is no method {name}.", remedy=f"Choose one of {', '.join(METHODS)}."
        )
    return METHODS[name]


def _adtr(
    short: Schedule, *, jitter: float = 0.0, windows: bool = False, **settings: Any
) -> Rebuild:
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

    return Rebuild(network, short, jitter)


def _convolutional(*widths: int) -> Rebuild:
    def network(shape: Shape) -> nn.Module:
        return ConvolutionalAutoencoder(ConvolutionalConfig(shape[0], widths))

    return Rebuild(network, SLOW)


_SMALL = {"layers": 2, "dimension": 128, "feedforward": 512}
_ALL = 1_000_000  # channels

# The 100 directions in which good parts vary most, whitened at each place, or alike everywhere.
COMPONENTS = Whiten(100, components=True)
EVERYWHERE = Whiten(100, per_place=False, components=True)
# Chosen on CIFAR-10's training images, those of other classes as anomalies.
TURNS_COUNT = 0.5
# Good parts that a bank holds at most: on a grid of 16, 0.1 MB each.
REFERENCES = 500

_FAST = Part(_adtr(BRIEF, windows=True, **_SMALL), COMPONENTS, "fast")
_PLACES = Part(Recall(REFERENCES), COMPONENTS, "places")
_ANYWHERE = Part(Remember(8000, coreset=True), EVERYWHERE, "anywhere")


def _alone(about: str, learn: Learner, whiten: Whiten | None = None, **more: Any) -> Method:
    return Method(about, (Part(learn, whiten),), **more)


METHODS: dict[str, Method] = {
    "paper": _alone("ADTR as in the paper: 4+4 layers, 256 wide", _adtr(SLOW)),
    "best": Method(
        "`fast`, `places` and `anywhere`, weighed by drawn defects",
        (_FAST, _PLACES, _ANYWHERE),
        weighed=True,
    ),
    "fast": Method("small ADTR (2+2 layers, 128 wide) on whitened features", (_FAST,)),
    "places": Method("the nearest good part at each place, of whitened features", (_PLACES,)),
    "anywhere": Method(
        "the nearest cell of good parts, of features whitened alike everywhere", (_ANYWHERE,)
    ),
    # The paper's figure 1 and its tables, on the small network.
    "small": _alone("small ADTR on plain features", _adtr(QUICK, **_SMALL)),
    "no-query": _alone("`small` without its query", _adtr(QUICK, query="none", **_SMALL)),
    "no-attention": _alone(
        "`small`, whose tokens see themselves alone",
        _adtr(QUICK, attention=False, query="target", **_SMALL),
    ),
    "last-stage": _alone(
        "`small` on the backbone's last stage", _adtr(QUICK, **_SMALL), sight="last"
    ),
    "cnn": _alone("convolutional autoencoder of features", _convolutional(256, 64)),
    "pixel-cnn": _alone(
        "convolutional autoencoder of pixels", _convolutional(32, 64, 128, 128), sight="pixels"
    ),
    "uniad": _alone(
        "`small` with UniAD's neighbour mask and jitter",
        _adtr(QUICK, jitter=20, masked=7, **_SMALL),
    ),
    # What users would pick instead.
    "knn": _alone("k-NN on 8,000 random vectors", Remember(8000)),
    "patchcore": _alone(
        "PatchCore: neighbourhoods, coreset", Remember(8000, neighbourhood=3, coreset=True)
    ),
    "turned": Method(
        "`pooled-gaussian`, joined with how surely a part is seen to be upright",
        (Part(Measure(), Whiten(_ALL, pooled=True)), Part(Orient(), counts=TURNS_COUNT)),
    ),
    "padim": _alone("PaDiM: a Gaussian for each place", Measure(), Whiten(100)),
    "components": _alone("a Gaussian for each place, along components", Measure(), COMPONENTS),
    "gaussian": _alone("one Gaussian for all places", Measure(), Whiten(_ALL, per_place=False)),
    "pooled-gaussian": _alone("one Gaussian of whole images", Measure(), Whiten(_ALL, pooled=True)),
}
