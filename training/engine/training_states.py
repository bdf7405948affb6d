"""Where a training keeps the checkpoints of its networks, so that an interrupted one goes on."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.engine.loop import Schedule, TrainingState


@dataclass(frozen=True)
class TrainingStates:
    """Checkpoints of one training in `directory`, tied to `facts`: all that decides its result,
    but what distinguishes its networks. With `resume`, networks go on from those that are there."""

    directory: Path
    facts: tuple[Any, ...]
    resume: bool
    fold: int | str | None = None

    def of_fold(self, fold: int | str) -> "TrainingStates":
        """Those of the networks that one fold learns."""
        return replace(self, fold=fold)

    def state(self, branch: int, schedule: Schedule, purpose: str = "") -> TrainingState:
        """The checkpoint of a branch's network, which can learn for several purposes."""
        key = "-".join(str(part) for part in (self.fold, branch, purpose) if part not in (None, ""))
        facts = json.dumps([*self.facts, key, asdict(schedule)], default=str)
        identity = hashlib.sha256(facts.encode()).hexdigest()
        return TrainingState(self.directory / f"checkpoint-{key}.pt", identity, resume=self.resume)


def remove_checkpoints(directory: Path) -> None:
    """Forget those of a training that is done."""
    for checkpoint in directory.glob("checkpoint-*.pt"):
        checkpoint.unlink()
