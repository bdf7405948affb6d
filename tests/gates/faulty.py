"""A service whose device fails when it is told to: `kizu serve`, with ONNX Runtime's sessions
broken beneath the engine.

    python -m tests.gates.faulty

The first line on its standard input has the settings, `{"KIZU_…": "…"}`; the next one names the
fault from then on.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import structlog
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

import service.app
import service.cli
from models.image import Pixels
from service.onnx_engine import OnnxDevice

log = structlog.get_logger()

POISON = 222  # the grey of an image that breaks the model
KNOWN = 60  # images that the bundle knows are darker than this, parts are not
RUN_S = 0.004  # so long a run takes at least, that images wait for each other
SLOW_S, STUTTER_S = 0.05, 0.5

Results = list[Any]  # scores (B) and heatmaps (B, h, w)
Run = Callable[[], Results]


def main() -> None:
    os.environ |= json.loads(_line())
    fault = Fault()
    threading.Thread(target=fault.listen, daemon=True).start()
    service.app.OnnxDevice = lambda *given, **named: FaultyDevice(fault, *given, **named)
    sys.argv = ["kizu", "serve", "--port", "0"]
    service.cli.main()


def _line() -> str:
    """Straight from the descriptor: a buffer's lock that a thread holds would end the process."""
    return os.read(0, 1000).decode()


class Fault:
    """What happens to runs from now on."""

    def __init__(self) -> None:
        self._name = "none"
        self._once = threading.Lock()  # taken by whom it has happened to

    def listen(self) -> None:
        name = _line().strip()
        since = time.monotonic()  # of the machine, and so the gate's, too
        self._name = name
        log.info("broken", fault=name, since=since)

    def run(self, images: Pixels, run: Run) -> Results:
        time.sleep(RUN_S)
        if self._name.startswith("once"):
            known = len(images) == 1 and images.mean() < KNOWN
            if (known or self._name == "once") and self._once.acquire(blocking=False):
                raise RuntimeException("It happened.")
            return run()
        if self._name.startswith("poison"):
            return _poisoned(images, run, self._name)
        return FAULTS[self._name](run)


class FaultyDevice(OnnxDevice):
    """A device whose sessions fail."""

    def __init__(self, fault: Fault, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._fault = fault

    def session(self, *given: Any, **named: Any) -> Any:
        return FaultySession(super().session(*given, **named), self._fault)


class FaultySession:
    """A session that fails; all else is ONNX Runtime's."""

    def __init__(self, session: Any, fault: Fault) -> None:
        self._session = session
        self._fault = fault

    def run(self, names: Sequence[str], inputs: dict[str, Pixels]) -> Results:
        return self._fault.run(inputs["image"], lambda: self._session.run(names, inputs))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def _raising(error: Exception) -> Callable[[Run], Results]:
    def fail(run: Run) -> Results:
        raise error

    return fail


def _giving(change: Callable[[Any, Any], Results]) -> Callable[[Run], Results]:
    return lambda run: change(*run())


def _after(seconds: float) -> Callable[[Run], Results]:
    def late(run: Run) -> Results:
        time.sleep(seconds)
        return run()

    return late


def _crowding(run: Run) -> Results:
    time.sleep(SLOW_S)
    scores, heatmaps = run()
    return [scores * np.float32(0.99), heatmaps]


def _hang(run: Run) -> Results:
    threading.Event().wait()
    return run()


def _with(values: Any, value: float) -> Any:
    """One of them replaced."""
    values = values.copy()
    values.flat[-1] = value
    return values


def _poisoned(images: Pixels, run: Run, how: str) -> Results:
    ill = images.mean(axis=(1, 2, 3)) == POISON
    if not ill.any():
        return run()
    if len(images) > 1:
        log.info("poisoned", images=len(images))
    if how == "poison: an exception":
        raise RuntimeException("Non-zero status code returned while running a node.")
    scores, heatmaps = run()
    return [np.where(ill, np.nan, scores), heatmaps]


# All but `once` and `poison`, which look at images.
FAULTS: dict[str, Callable[[Run], Results]] = {
    "none": lambda run: run(),
    "out of memory": _raising(MemoryError()),
    "device out of memory": _raising(
        RuntimeException("Failed to allocate memory for requested buffer of size 1073741824")
    ),
    "an exception": _raising(ValueError("This cannot be.")),
    "lost device": _raising(RuntimeException("CUDA failure 719: unspecified launch failure")),
    "a hang": _hang,
    "NaN in a score": _giving(lambda scores, maps: [_with(scores, np.nan), maps]),
    "NaN in a heatmap": _giving(lambda scores, maps: [scores, _with(maps, np.nan)]),
    "infinity in a score": _giving(lambda scores, maps: [_with(scores, -np.inf), maps]),
    "infinity in a heatmap": _giving(lambda scores, maps: [scores, _with(maps, np.inf)]),
    "a score too few": _giving(lambda scores, maps: [scores[1:], maps]),
    "a score too many": _giving(lambda scores, maps: [np.append(scores, scores[:1]), maps]),
    "a column of scores": _giving(lambda scores, maps: [scores[:, None], maps]),
    "a heatmap too few": _giving(lambda scores, maps: [scores, maps[1:]]),
    "heatmaps of another size": _giving(lambda scores, maps: [scores, maps[:, ::2]]),
    "heatmaps without a side": _giving(lambda scores, maps: [scores, maps[:, 0]]),
    "empty heatmaps": _giving(lambda scores, maps: [scores, maps[:, :0]]),
    "one output": _giving(lambda scores, maps: [scores]),
    "no output": _giving(lambda scores, maps: []),
    "outputs changed over": _giving(lambda scores, maps: [maps, scores]),
    "words": _giving(lambda scores, maps: [scores.astype(str), maps]),
    "all zero": _giving(lambda scores, maps: [0 * scores, 0 * maps]),
    "scores off by 1 %": _giving(lambda scores, maps: [scores * np.float32(0.99), maps]),
    "scores off by 1 %, and no room": _crowding,
    "heatmaps all zero": _giving(lambda scores, maps: [scores, 0 * maps]),
    "slow": _after(SLOW_S),
    "stuttering": _after(STUTTER_S),
}  # fmt: skip


if __name__ == "__main__":
    main()
