"""One of the processes that train together, as `torchrun` starts them: usually the only one.

Each learns its share of every batch, and the gradients are averaged: the losses are those of one
process with the whole batch, but for the noise of dropout and the statistics of batch norm.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NoReturn, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn

from models.session import Device
from training.errors import TrainingError

T = TypeVar("T")

# One process may compute features for long while another waits; torchrun ends all when one dies.
PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Worker:
    """The process `rank` of `count`; `device` is where its network learns."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @overload
    def share(self, items: NDArray[np.int64]) -> NDArray[np.int64]: ...
    @overload
    def share(self, items: Sequence[T]) -> Sequence[T]: ...
    def share(self, items: Sequence[T] | NDArray[np.int64]) -> Sequence[T] | NDArray[np.int64]:
        """This process's part of a batch. Raises TrainingError where it cannot be shared evenly."""
        if len(items) % self.count:
            raise TrainingError(
                f"A batch of {len(items)} cannot be shared among {self.count} processes.",
                remedy="Start torchrun with another --nproc-per-node.",
            )
        return items[self.rank :: self.count]

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of work that need not be shared evenly."""
        return items[self.rank :: self.count]

    def average(self, network: nn.Module, *values: float) -> list[float]:
        """Average the gradients of `network` over all processes in place, and return the values'
        averages."""
        if self.count == 1:
            return list(values)
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        extra = torch.tensor(values, device=self.device)
        flat = torch.cat([g.flatten() for g in gradients] + [extra])
        distributed.all_reduce(flat)
        flat /= self.count
        pieces = flat.split([g.numel() for g in gradients] + [len(values)])
        for gradient, piece in zip(gradients, pieces, strict=False):
            gradient.copy_(piece.view_as(gradient))
        averages: list[float] = pieces[-1].tolist()
        return averages

    def mean(self, value: float) -> float:
        """The mean of a value over all processes, which is the same in each."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return total.item() / self.count

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def leave_to_the_first(self) -> None:
        """End every process but the first, without an error: the rest is for one to do."""
        self.wait()
        if self.rank:
            _leave(0)

    def precision(self) -> AbstractContextManager[object]:
        """bfloat16 where a GPU has it. On a CPU a transformer is no faster in it."""
        if self.device.type == "cuda" and torch.cuda.is_bf16_supported():
            # Weights that are cast once and kept would not be those of a recording's next steps.
            return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)
        return nullcontext()


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """One of several processes ends with what is inside, and does not wait for Python to take
    itself down; a process that is alone is left as it is."""
    try:
        yield
    except SystemExit as end:
        if process_count() == 1:
            raise
        _leave(end.code if isinstance(end.code, int) else int(end.code is not None))
    if process_count() > 1:
        _leave(0)


def _leave(code: int) -> NoReturn:
    # While Python takes itself down, threads of libraries now and then abort the process
    # ("terminate called without an active exception"), and torchrun takes what is done for failed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def process_count() -> int:
    """How many processes `torchrun` started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def enlisted(device: Device = "auto") -> Iterator[Worker]:
    """This process, joined with the others that torchrun started.

    `auto` is CUDA where torch was built for it. What serves by TensorRT or OpenVINO learns on the
    same GPU or CPU. Raises TrainingError when the device is not there.
    """
    chosen = {"tensorrt": "cuda", "openvino": "cpu"}.get(device, device)
    if device == "auto":
        chosen = "cuda" if torch.version.cuda and torch.cuda.is_available() else "cpu"
    if chosen == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "The network was to learn on a GPU, but this torch finds none.",
            remedy="Check the driver and install a torch for CUDA, or set the device to cpu.",
        )
    count = process_count()
    if chosen == "cuda":
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(where)
    else:
        where = torch.device("cpu")
    if count == 1:
        yield Worker(device=where)
        return
    distributed.init_process_group("nccl" if chosen == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Worker(distributed.get_rank(), count, where)
    finally:
        distributed.destroy_process_group()
