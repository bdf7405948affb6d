"""How good a backbone is at telling defects, before anything is learned on it: the k-NN probe."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from models.backbone import Backbone
from models.session import Device, open_session
from training.data.folders import Dataset
from training.directories import Directories
from training.errors import TrainingError
from training.fitting.settings import FitSettings
from training.fitting.training import train_recipe
from training.progress import Reporter

PROBE = "knn"
_RUNS = 30  # of one image, whose median is the time


@dataclass(frozen=True)
class Probed:
    """Metrics of the test images (0..1), the mean over seeds; cost of the backbone alone."""

    metrics: dict[str, float]
    milliseconds: float
    parameters: int
    megabytes: float


def probe(
    data: Dataset,
    backbone: Backbone,
    cache: Path,
    *,
    size: int = 256,
    grid: int = 16,
    seeds: int = 3,
    threads: int = 2,
    device: Device = "auto",
    reporter: Reporter | None = None,
) -> Probed:
    """Distances to the nearest of 8,000 cells of good parts, on the features of all stages.

    Seeds draw the cells. Features are kept in `cache`. Raises DatasetError or TrainingError.
    """
    found: list[dict[str, float]] = []
    for seed in range(seeds):
        settings = FitSettings(
            "probe", preset=PROBE, size=size, grid=grid, seed=seed, device=device
        )
        trained = train_recipe(
            data, backbone, settings, Directories(cache, cache), reporter=reporter
        )
        if not (trained.test and trained.test.metrics):
            raise TrainingError(
                "There are no good and defective test images to score a backbone by.",
                remedy="Put some into test/good/ and test/<defect>/.",
            )
        found.append(trained.test.metrics)
    graph = trained.cache.source.graph
    return Probed(
        {name: statistics.mean(run[name] for run in found) for name in found[0]},
        _milliseconds(graph, size, threads, device),
        sum(
            int(np.prod(tensor.dims))
            for tensor in onnx.load_from_string(backbone.model).graph.initializer
            if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        ),
        len(backbone.model) / 1e6,
    )


def _milliseconds(model: bytes, size: int, threads: int, device: Device) -> float:
    session = open_session(model, device=device, threads=threads)
    image = np.zeros((1, size, size, 3), np.uint8)
    taken = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        session.run(None, {"image": image})
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)
