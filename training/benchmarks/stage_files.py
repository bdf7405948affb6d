"""What a benchmark keeps of a stage beside its figures, for its page: scores, curves, pictures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.durable import make_directory, write_file
from training.fitting.training import Trained
from training.reporting.examples import pictures, telling

EXAMPLES = 4
POINTS = 200  # of a curve
_NAME = "stage.json"


def write_stage(directory: Path, trained: Trained) -> None:
    """Keep what the page shows of a training that was tried on test images."""
    test = trained.test
    assert test is not None
    good = trained.scores
    low, high = float(good.min()) * 0.5, float(good.max()) * 1.3
    shown = {
        title: [
            asdict(picture) for picture in pictures(trained.scorer, trained.cache, files, low, high)
        ]
        for title, files in telling(test, EXAMPLES).items()
    }
    content = {
        "good": _numbers(test.scores[~test.anomalous]),
        "defective": _numbers(test.scores[test.anomalous]),
        "roc": _curve(test.roc()),
        "precision_recall": _curve(test.precision_recall()),
        "region_overlap": _curve(test.region_overlap()),
        "loss": trained.curve,
        "examples": shown,
    }
    make_directory(directory)
    write_file(directory / _NAME, json.dumps(content).encode())


def read_stage(directory: Path) -> dict[str, Any] | None:
    """What was kept, or None."""
    path = directory / _NAME
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _curve(curve: tuple[Any, Any] | None) -> list[list[float]] | None:
    if curve is None:
        return None
    chosen = np.unique(np.linspace(0, len(curve[0]) - 1, POINTS).astype(int))
    return [_numbers(axis[chosen]) for axis in curve]


def _numbers(values: NDArray[np.floating]) -> list[float]:
    return [round(float(value), 5) for value in values]
