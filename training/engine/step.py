"""One step of descent: the loss of a batch, its gradients, and the optimiser's update."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from training.engine.distributed import Worker

Batch = TypeVar("Batch")
# A tensor, or a tuple of tensors.
Tensors = TypeVar("Tensors", bound=Any)

# A GPU's libraries take their memory and choose their kernels in the first steps. So many are taken
# before one is recorded, as PyTorch advises.
WARM = 3


class Step(Generic[Batch]):
    """Learns from a batch: `network` is changed in place, by AdamW."""

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Batch], Tensor],
        worker: Worker,
        *,
        clip: float,
        weight_decay: float,
    ) -> None:
        self._network = network
        self._loss = loss
        self._worker = worker
        self._clip = clip
        self.optimiser = self._optimiser(weight_decay)

    def ready(self) -> None:
        """Go on from an optimiser's checkpoint, whatever device it was made on."""
        for group in self.optimiser.param_groups:
            group |= {"fused": None, "capturable": False}
        for state in self.optimiser.state.values():
            state["step"] = state["step"].cpu()

    def rate(self, value: float) -> None:
        """Set the learning rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = value

    def __call__(self, batch: Batch, stopping: bool) -> tuple[float, float, bool]:
        """The loss, the gradients' norm before it was clipped, and whether any process is
        `stopping`, of which all must hear at the same step: one would wait for the others forever.
        """
        value = self._backward(batch)
        mean, anyone = self._worker.average(self._network, value.item(), float(stopping))
        norm = self._update()
        return mean, norm.item(), bool(anyone)

    def _optimiser(self, weight_decay: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self._network.parameters(), weight_decay=weight_decay)

    def _backward(self, batch: Batch) -> Tensor:
        with self._worker.precision():
            value = self._loss(batch)
        self.optimiser.zero_grad()
        value.backward()
        return value.detach()

    def _update(self) -> Tensor:
        norm = nn.utils.clip_grad_norm_(self._network.parameters(), self._clip)
        self.optimiser.step()
        return norm


class RecordedStep(Step[Tensors]):
    """The same on a GPU, whose launches are recorded once, as a CUDA graph, and then repeated.

    Small networks are made of a thousand short kernels a step, and Python takes longer to launch
    them than the GPU to run them. The loss must be tensor arithmetic that never looks at a value,
    of batches that always have the same shapes.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Tensors], Tensor],
        worker: Worker,
        *,
        clip: float,
        weight_decay: float,
    ) -> None:
        self._rate = torch.zeros((), device=worker.device)
        super().__init__(network, loss, worker, clip=clip, weight_decay=weight_decay)
        self._taken = 0
        self._stream = torch.cuda.Stream(worker.device)
        self._graph = torch.cuda.CUDAGraph()
        self._given: Sequence[Tensor] = ()
        self._said = torch.zeros(2, device=worker.device)

    def _optimiser(self, weight_decay: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self._network.parameters(), lr=self._rate, weight_decay=weight_decay, fused=True,
            capturable=True,
        )  # fmt: skip

    def ready(self) -> None:
        for group in self.optimiser.param_groups:
            group |= {"lr": self._rate, "fused": True, "capturable": True}
        for state in self.optimiser.state.values():
            state["step"] = state["step"].to(self._worker.device)

    def rate(self, value: float) -> None:
        self._rate.fill_(value)

    def __call__(self, batch: Tensors, stopping: bool) -> tuple[float, float, bool]:
        if self._taken < WARM:
            said = self._warm(batch)
        else:
            if self._taken == WARM:
                self._record(batch)
            for place, tensor in zip(self._given, _parts(batch), strict=True):
                place.copy_(tensor)
            self._graph.replay()
            said = self._said
        self._taken += 1
        value, norm = said.tolist()
        return value, norm, stopping

    def _warm(self, batch: Tensors) -> Tensor:
        """A step as it is, on a stream that is not the usual one, as a recording is made."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            said = self._step(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return said

    def _record(self, batch: Tensors) -> None:
        """Nothing is computed yet: the batch's memory is what every repetition reads."""
        self.optimiser.zero_grad()  # the recording takes its own memory for gradients
        self._given = [tensor.clone() for tensor in _parts(batch)]
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._said = self._step(_like(batch, self._given))

    def _step(self, batch: Tensors) -> Tensor:
        value = self._backward(batch)
        return torch.stack([value, self._update()])


def step_of(
    network: nn.Module,
    loss: Callable[[Batch], Tensor],
    worker: Worker,
    *,
    clip: float,
    weight_decay: float,
    repeatable: bool,
) -> Step[Batch]:
    """Recorded where it can be, and where it pays: on one GPU."""
    alone = worker.count == 1 and worker.device.type == "cuda"
    kind: type[Step[Batch]] = RecordedStep if repeatable and alone else Step
    return kind(network, loss, worker, clip=clip, weight_decay=weight_decay)


def _parts(batch: Any) -> Sequence[Tensor]:
    return (batch,) if isinstance(batch, Tensor) else batch


def _like(batch: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(batch, Tensor):
        return tensors[0]
    return type(batch)(*tensors) if hasattr(batch, "_fields") else tuple(tensors)
