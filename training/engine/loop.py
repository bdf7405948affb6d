"""The training loop: a plain function whose every step depends on the seed and its number alone.

Nothing random is carried from step to step, so a run that was interrupted and resumed computes
the very losses of one that was not.
"""

import io
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from models.durable import make_directory, write_file
from training.engine.distributed import Worker
from training.engine.step import WARM, step_of
from training.errors import TrainingError

Batch = TypeVar("Batch")

SAVE_EVERY_S = 60.0
# So many times the first steps' losses. Nothing learned is worth going on with then.
EXPLODED = 100.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn.

    `one-cycle` warms up over a tenth of the steps and anneals to zero; `step` holds the rate and
    divides it by ten at 80 % (the paper's 400 of 500 epochs).
    """

    steps: int
    batch: int
    learning_rate: float
    kind: Literal["one-cycle", "step"] = "one-cycle"
    weight_decay: float = 1e-4
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        done = step / max(1, self.steps)
        if self.kind == "step":
            return self.learning_rate * (0.1 if done >= 0.8 else 1.0)
        if done < 0.1:
            return self.learning_rate * (0.04 + 0.96 * done / 0.1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))


@dataclass
class Validation:
    """The `error` of the network on what it does not learn, computed after `every` so many steps.

    Where it has not been lower for `patience` times, the training ends. `errors` are by the number
    of steps that were learned.
    """

    error: Callable[[], float]
    every: int
    patience: int = 5
    errors: dict[int, float] = field(default_factory=dict)

    @property
    def best(self) -> int:
        """After how many steps the error was lowest, of several as low the most."""
        return min(self.errors, key=lambda step: (self.errors[step], -step))

    @property
    def over(self) -> bool:
        """Whether it has not been lower for long."""
        steps = list(self.errors)
        return bool(steps) and len(steps) - 1 - steps.index(self.best) >= self.patience

    def measure(self, network: nn.Module, step: int, worker: Worker) -> None:
        """Compute the error of the network as it is."""
        network.eval()
        with torch.no_grad(), worker.precision():
            self.errors[step] = worker.mean(self.error())
        network.train()


def train(
    network: nn.Module,
    schedule: Schedule,
    batch: Callable[[int], Batch],
    loss: Callable[[Batch], Tensor],
    *,
    seed: int,
    state: "TrainingState | None" = None,
    progress: Callable[[int, float], None] | None = None,
    worker: Worker | None = None,
    repeatable: bool = False,
    validation: Validation | None = None,
) -> list[float]:
    """Train `network` in place and return the loss of every step.

    `batch(step)` must depend on the step alone, and be this worker's share, where it learns. A loss
    is `repeatable` that is tensor arithmetic alone, of batches of one shape: a GPU then records a
    step and repeats it. Where a `state` is given, it is continued from, saved every minute and at
    an interruption. A `validation` can end it early; the network is then the last one, not the
    best. Raises TrainingError when the loss is not finite.
    """
    worker = worker or Worker()
    network.to(worker.device)
    learn = step_of(
        network, loss, worker, clip=schedule.clip, weight_decay=schedule.weight_decay,
        repeatable=repeatable,
    )  # fmt: skip
    validated = validation.errors if validation else {}
    losses = state.load(network, learn.optimiser, validated) if state else []
    learn.ready()
    network.train()
    saved = time.monotonic()
    steps = range(len(losses), len(losses) if validation and validation.over else schedule.steps)
    with _deferred_interrupt() as interrupted:
        for step, given in zip(steps, _batches(batch, steps, worker), strict=True):
            torch.manual_seed(seed * 1_000_003 + step)  # dropout
            learn.rate(schedule.rate(step))
            mean, norm, stopping = learn(given, interrupted())
            _check(mean, norm, losses, schedule)
            losses.append(mean)
            if progress:
                progress(step + 1, mean)
            if validation and (step + 1) % validation.every == 0:
                validation.measure(network, step + 1, worker)
            due = stopping or time.monotonic() - saved > SAVE_EVERY_S
            if state and worker.rank == 0 and due:
                state.save(network, learn.optimiser, losses, validated)
                saved = time.monotonic()
            if stopping:
                raise KeyboardInterrupt
            if validation and validation.over:
                break
        if state and worker.rank == 0:
            # What comes after a training can fail, too.
            state.save(network, learn.optimiser, losses, validated)
        if interrupted():
            raise KeyboardInterrupt
    network.eval().cpu()
    return losses


def _batches(
    batch: Callable[[int], Batch], steps: Sequence[int], worker: Worker
) -> Iterator[Batch]:
    """The batch of each step; on a GPU, which needs no core, the next is made beside it."""
    if worker.device.type != "cuda":
        yield from map(batch, steps)
        return
    first, rest = steps[: WARM + 1], steps[WARM + 1 :]
    yield from map(batch, first)  # nothing else may use a GPU that records
    with ThreadPoolExecutor(1) as beside:
        following = [beside.submit(batch, step) for step in rest[:1]]
        for step in rest:
            given = following.pop().result()
            if step < rest[-1]:
                following.append(beside.submit(batch, step + 1))
            yield given


def _check(value: float, norm: float, losses: list[float], schedule: Schedule) -> None:
    """Raise TrainingError where going on makes no sense, with the likely cause."""
    step = len(losses)
    if not (math.isfinite(value) and math.isfinite(norm)):
        raise TrainingError(
            f"The loss became {value} at step {step}.",
            remedy="Look for images that are all one colour; try another --seed.",
        )
    start = max(losses[:10], default=value)
    if value > EXPLODED * start > 0:
        raise TrainingError(
            f"The loss exploded at step {step}: {value:.3g}, after {start:.3g} at the start.",
            remedy=f"The learning rate of {schedule.learning_rate:g} is too high for these images, "
            "or one of them is unlike all others: look at those with the highest scores.",
        )


def epochs(count: int, batch: int, seed: int) -> Callable[[int], np.ndarray[Any, Any]]:
    """Which of `count` samples make up a step's batch: each epoch is its own permutation."""
    per_epoch = max(1, count // batch)

    def indices(step: int) -> np.ndarray[Any, Any]:
        epoch, position = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(count)
        return order[position * batch : (position + 1) * batch]

    return indices


class TrainingState:
    """A training's checkpoint on disk, tied to what is trained by `identity`."""

    def __init__(self, path: Path, identity: str, *, resume: bool) -> None:
        self._path = path
        self._identity = identity
        self._resume = resume

    def load(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        validated: dict[int, float] | None = None,
    ) -> list[float]:
        """Restore a checkpoint and return the losses so far; none when there is none to resume.

        `validated` takes the errors of a validation, by step. Raises TrainingError when the
        checkpoint is of another training.
        """
        if not (self._resume and self._path.exists()):
            return []
        saved = torch.load(self._path, map_location="cpu", weights_only=True)
        if saved["identity"] != self._identity:
            raise TrainingError(
                f"{self._path} is the checkpoint of another training.",
                remedy="Give the same data and settings as before, or start anew without --resume.",
            )
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        if validated is not None:
            validated |= saved["validated"]
        losses: list[float] = saved["losses"]
        return losses

    def save(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        losses: list[float],
        validated: dict[int, float] | None = None,
    ) -> None:
        """Write the checkpoint, whole or not at all."""
        buffer = io.BytesIO()
        torch.save(
            {
                "identity": self._identity,
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "losses": losses,
                "validated": validated or {},
            },
            buffer,
        )
        make_directory(self._path.parent)
        write_file(self._path, buffer.getvalue())


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait for the end of the step, so that a checkpoint is never of half an update."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    arrived: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: arrived.append(number))
    try:
        yield lambda: bool(arrived)
    finally:
        signal.signal(signal.SIGINT, previous)
