"""From a seed to a backbone: draw, learn, judge by products that nothing was learned from."""

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from training.engine.distributed import Worker
from training.engine.loop import Schedule, TrainingState, train
from training.evaluation.metrics import image_metrics
from training.networks.residual import ResidualConfig, ResidualNetwork
from training.pretrain.episodes import Episode, EpisodeSize, draw_episode
from training.pretrain.patterns import PATTERNS
from training.pretrain.product import Library, draw_library
from training.pretrain.task import Task, gather, relative_distances
from training.progress import Reporter

# Families of patterns that are never learned from: what is chosen, is chosen by them.
HELD_OUT = ("grain", "weave")
_AHEAD = 4  # batches drawn while others are learned


@dataclass(frozen=True)
class PretrainSettings:
    """All that decides which backbone comes out.

    `materials` are drawn of each family, `shapes` of each kind; the schedule's batch is episodes.
    """

    seed: int = 0
    schedule: Schedule = field(default_factory=lambda: Schedule(8000, 4, 2e-3, weight_decay=0.05))
    network: ResidualConfig = field(default_factory=ResidualConfig)
    size: EpisodeSize = field(default_factory=EpisodeSize)
    materials: int = 24
    shapes: int = 60
    precision: Literal["bfloat16", "float32"] = "bfloat16"

    @property
    def families(self) -> tuple[str, ...]:
        """Which patterns are learned from."""
        return tuple(sorted(set(PATTERNS) - set(HELD_OUT)))

    @property
    def identity(self) -> str:
        """Changes with anything that would change the result."""
        facts = json.dumps([asdict(self), self.families], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()


@dataclass(frozen=True)
class Judged:
    """Mean AUROC over products (0..1) of images, and of cells, by distances to good parts alone."""

    images: float
    cells: float


@dataclass(frozen=True)
class Pretrained:
    """What a pretraining leaves. `known` are new products of learned families, `new` of others."""

    network: ResidualNetwork
    losses: list[float]
    seconds: float
    known: Judged
    new: Judged


def pretrain(
    settings: PretrainSettings,
    checkpoint: Path,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
    worker: Worker | None = None,
    products: int = 40,
) -> Pretrained:
    """Learn a backbone from drawn products alone, and judge it on so many that it has not seen.

    Of several processes, only the first returns. Raises TrainingError.
    """
    reporter, worker = reporter or Reporter(), worker or Worker()
    torch.manual_seed(settings.seed)
    task = Task(ResidualNetwork(settings.network), half=settings.precision == "bfloat16")
    task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    started = time.monotonic()
    losses: list[float] = []
    if settings.schedule.steps:
        with (
            reporter.bar("Pretraining", settings.schedule.steps) as advance,
            _drawn(settings, worker) as batch,
        ):
            losses = train(
                task, settings.schedule,
                lambda step: [tensor.to(worker.device) for tensor in batch(step)],
                lambda tensors: task(tensors[0], settings.size.references, tensors[1]),
                seed=settings.seed,
                state=TrainingState(checkpoint, settings.identity, resume=resume),
                progress=lambda step, loss: advance(step, f"loss {loss:.3f}"),
                worker=worker,
            )  # fmt: skip
    worker.leave_to_the_first()
    seconds = time.monotonic() - started
    network = task.network.eval()
    known, new = (
        judge(network, drawn_products(families, settings, products, reporter))
        for families in (settings.families, HELD_OUT)
    )
    return Pretrained(network, losses, seconds, known, new)


def drawn_products(
    families: Sequence[str], settings: PretrainSettings, count: int, reporter: Reporter
) -> Iterator[Episode]:
    """Products of other materials than any that are learned, at the size that is inspected."""
    library = draw_library(
        settings.seed + 1, families=families, materials=min(settings.materials, 4),
        shapes=min(settings.shapes, 20),
    )  # fmt: skip
    size = EpisodeSize(references=16, good=12, defective=20, side=256)
    with reporter.bar("Judging", count) as advance:
        for number in range(count):
            yield draw_episode(library, size, np.random.default_rng([settings.seed, 1, number]))
            advance(number + 1, "")


def judge(network: ResidualNetwork, episodes: Iterator[Episode]) -> Judged:
    """How well the distance to the nearest good cell tells defects, on each episode's product."""
    images, cells = [], []
    for episode in episodes:
        with torch.inference_mode():
            maps = [gather(network(batch)) for batch in to_tensor(episode.images).split(8)]
            far_NL = relative_distances(torch.cat(maps)[None], episode.references)[0].numpy()
        changed = episode.changed.reshape(len(episode.images), -1)
        asked = np.arange(len(changed)) >= episode.references
        bad, good = (changed == 1).any(1) & asked, (changed == 0).all(1) & asked
        images.append(_auroc(far_NL.max(1), bad, good))
        asked_NL = np.broadcast_to(asked[:, None], changed.shape)
        cells.append(_auroc(far_NL, (changed == 1) & asked_NL, (changed == 0) & asked_NL))
    return Judged(float(np.nanmean(images)), float(np.nanmean(cells)))


def to_tensor(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """uint8 (…, H, W, 3) to float32 (…, 3, H, W), 0..1."""
    return torch.from_numpy(images).movedim(-1, -3).float() / 255


def _auroc(
    scores: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    bad: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    good: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
) -> float:
    """NaN where one side is empty."""
    if not bad.any() or not good.any():
        return float("nan")
    both = bad | good
    metrics = image_metrics(scores[both], bad[both], np.ones((1, int(both.sum()))))
    return float(metrics["image_auroc"][0])


@contextmanager
def _drawn(settings: PretrainSettings, worker: Worker) -> Iterator["Batches"]:
    """Batches by step, drawn by other processes ahead of need."""
    # Spawned: a process that was forked while torch's threads ran can hang.
    context = multiprocessing.get_context("spawn")
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    workers = max(1, cores // 2)
    # Threads that wait for each other on cores where others draw took a step from 0.35 s to 0.6.
    torch.set_num_threads(max(1, min(threads, cores - workers)))
    with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
        batches = Batches(pool, settings, worker.share(range(settings.schedule.batch)))
        try:
            yield batches
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(threads)


class Batches:
    """`batches(step)` is images (E, N, 3, H, W) and changes (E, N, h, w).

    `episodes` are the numbers of those of a batch that this process learns.
    """

    def __init__(
        self, pool: ProcessPoolExecutor, settings: PretrainSettings, episodes: Sequence[int]
    ) -> None:
        self._pool, self._settings, self._episodes = pool, settings, episodes
        self._coming: dict[int, Future[list[np.ndarray]]] = {}

    def __call__(self, step: int) -> list[Tensor]:
        for ahead in range(step, min(step + _AHEAD, self._settings.schedule.steps)):
            if ahead not in self._coming:
                self._coming[ahead] = self._pool.submit(
                    _draw, self._settings, ahead, self._episodes
                )
        images, changed = self._coming.pop(step).result()
        return [to_tensor(images), torch.from_numpy(changed)]


@lru_cache(maxsize=1)  # one for each process that draws
def _library(settings: PretrainSettings) -> Library:
    return draw_library(
        settings.seed, families=settings.families, materials=settings.materials,
        shapes=settings.shapes,
    )  # fmt: skip


def _draw(settings: PretrainSettings, step: int, numbers: Sequence[int]) -> list[np.ndarray]:
    episodes = [
        draw_episode(
            _library(settings), settings.size,
            np.random.default_rng([settings.seed, 0, step, number]),
        )
        for number in numbers
    ]  # fmt: skip
    return [np.stack([e.images for e in episodes]), np.stack([e.changed for e in episodes])]
