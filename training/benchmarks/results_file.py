"""A benchmark's results on disk: written after each run, gone on with after an interruption."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.durable import write_file
from training.errors import TrainingError


def open_results(path: Path, conditions: Mapping[str, Any], runs: str = "runs") -> dict[str, Any]:
    """What an interrupted benchmark left, or nothing yet; `runs` is the key of what was measured.

    Raises TrainingError where the file holds results that were measured under other conditions.
    """
    if not path.exists():
        return {"conditions": dict(conditions), runs: {}}
    results: dict[str, Any] = json.loads(path.read_text())
    earlier: dict[str, Any] = results.get("conditions", {})
    other = [name for name, value in conditions.items() if earlier.get(name) != value]
    if other:
        raise TrainingError(
            f"{path} holds results of other conditions: {', '.join(other)}.",
            remedy="Name another file with --json, and another folder with --out.",
        )
    return results


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write all results, atomically and durably."""
    write_file(path, json.dumps(results, indent=2).encode())
