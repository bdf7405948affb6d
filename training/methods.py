"""Named methods: what `fit --preset` and `benchmark --methods` can be told.

All of them learn from the same features of the same good parts, and turn distances into a score
and a heatmap in the same way; so they differ in nothing but what they are named for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from training.data import LabelledFile
from training.errors import TrainingError
from training.features import FeatureCache
from training.learners import Measure, Orient, Rebuild, Recall, Remember, Whiten
from training.lesson import Learner, Lesson
from training.loop import Schedule
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
class Method:
    """Parts that are learned one after the other, of whitened features if they are to be, and
    whose distances are joined."""

    about: str
    parts: tuple[Learner, ...]
    whiten: Whiten | None = None
    sight: Sight = "stages"

    @property
    def rebuilds(self) -> bool:
        """Whether a part learns by rebuilding: only that can learn from anomalies, too."""
        return any(isinstance(part, Rebuild) for part in self.parts)

    def learn(
        self, lesson: Lesson, settings: ScoreSettings | None = None
    ) -> tuple[Scorer, list[float]]:
        """A scorer that has learned, and the loss of every step of all its parts.

        Where there are several parts, they are yet to be balanced. Raises TrainingError.
        """
        if self.whiten:
            lesson = lesson.whitened(self.whiten(lesson))
        parts, curve = [], []
        for number, learn in enumerate(self.parts):
            part, losses = learn(lesson, number)
            parts.append(part)
            curve += losses
        score = HeatmapScore(lesson.cache.source.size.height // lesson.shape[1], settings)
        scorer = Scorer(lesson.raw_shape, lesson.standardise, lesson.whitening, parts, score)
        return scorer.eval(), curve


def method(name: str) -> Method:
    """The method of this name. Raises TrainingError."""
    if name not in METHODS:
        raise TrainingError(
            f"There is no method {name}.", remedy=f"Choose one of {', '.join(METHODS)}."
        )
    return METHODS[name]


def balance(scorer: Scorer, cache: FeatureCache, normals: Sequence[LabelledFile]) -> None:
    """Let the parts of a scorer weigh alike: each is divided by the deviation of the scores that
    it alone gives good parts. It must not have learned these: from those that it holds, a bank is
    no distance away."""
    if len(scorer.parts) == 1:
        return
    scores = []
    for file in normals:
        with torch.inference_mode():
            distance_PBHW = scorer.distances(torch.from_numpy(cache[file.sha256])[None])
            scores.append(torch.cat([scorer.score(part)[0] for part in distance_PBHW]))
    scorer.scale_P.copy_(torch.stack(scores).std(0).clamp_min(_STEADY))


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


# Of the scores that a part gives; less would make it all that counts.
_STEADY = 1e-3
_SMALL = {"layers": 2, "dimension": 128, "feedforward": 512}
_ALL = 1_000_000  # channels

TURNING = Schedule(steps=400, batch=16, learning_rate=2e-3, weight_decay=0.05)

# The 100 directions in which good parts vary most, whitened at each place.
COMPONENTS = Whiten(100, components=True)
# Good parts that a bank holds at most: on a grid of 16, 0.1 MB each.
REFERENCES = 500

METHODS: dict[str, Method] = {
    "paper": Method("ADTR as in the paper: 4+4 layers, 256 wide", (_adtr(SLOW),)),
    "best": Method(
        "`fast`, joined with `places`",
        (_adtr(BRIEF, windows=True, **_SMALL), Recall(REFERENCES)),
        COMPONENTS,
    ),
    "fast": Method(
        "small ADTR (2+2 layers, 128 wide) on whitened features",
        (_adtr(BRIEF, windows=True, **_SMALL),),
        COMPONENTS,
    ),
    "places": Method(
        "the nearest good part at each place, of whitened features",
        (Recall(REFERENCES),),
        COMPONENTS,
    ),
    # The paper's figure 1 and its tables, on the small network.
    "small": Method("small ADTR on plain features", (_adtr(QUICK, **_SMALL),)),
    "no-query": Method("`small` without its query", (_adtr(QUICK, query="none", **_SMALL),)),
    "no-attention": Method(
        "`small`, whose tokens see themselves alone",
        (_adtr(QUICK, attention=False, query="target", **_SMALL),),
    ),
    "last-stage": Method(
        "`small` on the backbone's last stage", (_adtr(QUICK, **_SMALL),), sight="last"
    ),
    "cnn": Method("convolutional autoencoder of features", (_convolutional(256, 64),)),
    "pixel-cnn": Method(
        "convolutional autoencoder of pixels", (_convolutional(32, 64, 128, 128),), sight="pixels"
    ),
    "uniad": Method(
        "`small` with UniAD's neighbour mask and jitter",
        (_adtr(QUICK, jitter=20, masked=7, **_SMALL),),
    ),
    # What users would pick instead.
    "knn": Method("k-NN on 8,000 random vectors", (Remember(8000),)),
    "patchcore": Method(
        "PatchCore: neighbourhoods, coreset", (Remember(8000, neighbourhood=3, coreset=True),)
    ),
    "turned": Method(
        "`pooled-gaussian`, joined with how surely a part is seen to be upright",
        (Measure(Whiten(_ALL, pooled=True)), Orient(TURNING)),
    ),
    "padim": Method("PaDiM: a Gaussian for each place", (Measure(),), Whiten(100)),
    "components": Method("a Gaussian for each place, along components", (Measure(),), COMPONENTS),
    "gaussian": Method("one Gaussian for all places", (Measure(),), Whiten(_ALL, per_place=False)),
    "pooled-gaussian": Method(
        "one Gaussian of whole images", (Measure(Whiten(_ALL, pooled=True)),)
    ),
}
