"""Images to raw scores, in batches, each by the engine of its bundle."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.image import Pixels
from service.batcher import Batcher
from service.engine import Floats
from service.metrics import Metrics
from service.registry import Loaded
from service.settings import Settings


@dataclass(frozen=True)
class Scored:
    """A raw score and heatmap (h, w), and how long the run took that they are of."""

    score: float
    heatmap: Floats
    seconds: float


ImageBatcher = Batcher[Loaded, Pixels, Scored]


def image_batcher(
    settings: Settings, metrics: Metrics, *, lanes: int, max_batch: int
) -> ImageBatcher:
    """A running batcher for this process's device."""
    batcher: ImageBatcher = Batcher(
        score_images,
        max_queue=settings.max_queue,
        max_batch=max_batch,
        lanes=lanes,
        linger_s=settings.batch_wait_ms / 1000,
        observe=lambda run: metrics.batch.labels(run.reason).observe(run.size),
    )
    metrics.queue.set_function(lambda: batcher.depth)
    metrics.queue_age.set_function(lambda: batcher.age)
    return batcher


def score_images(loaded: Loaded, images: Sequence[Pixels]) -> list[Scored]:
    """One run of the engine. Raises EngineFailure."""
    started = time.perf_counter()
    outputs = loaded.engine.run(np.stack(images))
    seconds = time.perf_counter() - started
    return [
        Scored(float(score), heatmap_hw, seconds)
        for score, heatmap_hw in zip(outputs.scores, outputs.heatmaps, strict=True)
    ]
