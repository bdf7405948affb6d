"""Good parts in every turn, told from each other and from other things.

Who can tell by how many quarters a part was turned knows what the part is (Golan & El-Yaniv, "Deep
anomaly detection using geometric transformations", 2018). Images of other things are one more
outcome (Hendrycks et al., "Deep anomaly detection with outlier exposure", 2019).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.backbones.features import FeatureCache
from training.data.folders import LabelledFile
from training.engine.distributed import Worker
from training.engine.loop import Schedule, TrainingState, epochs, train
from training.networks.orientation import OTHER, TURNS, Orientation
from training.progress import Reporter

# Names in a cache to features (B, K, H, W).
See = Callable[[Sequence[str]], Tensor]
# Many parts deserve more steps, so many that each is seen `EPOCHS` times.
ROTATION = Schedule(steps=800, batch=16, learning_rate=1e-3, weight_decay=0.1)
EPOCHS = 8
_SMOOTHING = 0.05


def rotate_parts(
    cache: FeatureCache, files: Sequence[LabelledFile], reporter: Reporter, worker: Worker
) -> list[list[str]]:
    """For every turn, the names of all parts' features, computed where they are missing."""
    with reporter.bar("Turning parts", len(files)) as advance:
        for done, file in enumerate(worker.part(files)):
            names = [_turned(file, turn) for turn in range(1, TURNS)]
            if any(name not in cache for name in names):
                image = cache.source.read(file.image)
                for turn, name in enumerate(names, 1):
                    cache.put({name: np.ascontiguousarray(np.rot90(image, turn))})
            advance(done + 1, "")
    worker.wait()
    return [[_turned(file, turn) for file in files] for turn in range(TURNS)]


def learn_rotations(
    network: Orientation,
    see: See,
    turned: Sequence[Sequence[str]],
    others: Sequence[str],
    schedule: Schedule,
    *,
    seed: int,
    reporter: Reporter,
    worker: Worker,
    state: TrainingState | None = None,
) -> list[float]:
    """Train `network` in place on good parts, by turn, and on `others`, of which each batch has as
    many as upright ones. Returns the loss of every step. Raises TrainingError."""
    indices = epochs(len(turned[0]), schedule.batch, seed)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        chosen = worker.share(indices(step))
        names = [names[i] for names in turned for i in chosen]
        outcomes = torch.arange(TURNS).repeat_interleave(len(chosen))
        if others:
            rng = np.random.default_rng([seed, step])
            drawn = worker.share(rng.integers(len(others), size=len(indices(step))))
            names += [others[i] for i in drawn]
            outcomes = torch.cat([outcomes, torch.full((len(drawn),), OTHER)])
        return see(names).to(worker.device), outcomes.to(worker.device)

    def loss(given: tuple[Tensor, Tensor]) -> Tensor:
        features, outcomes = given
        return F.cross_entropy(network.outcomes(features), outcomes, label_smoothing=_SMOOTHING)

    with reporter.bar("Learning turns", schedule.steps) as advance:
        return train(
            network, schedule, batch, loss, seed=seed, worker=worker, state=state, repeatable=True,
            progress=lambda step, value: advance(step, f"loss {value:.2f}"),
        )  # fmt: skip


def _turned(file: LabelledFile, turn: int) -> str:
    return f"{file.sha256}-turn{turn}" if turn else file.sha256
