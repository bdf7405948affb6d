"""What a device does with nothing around it."""

import itertools
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort

from models.bundle import MODEL, open_bundle
from models.image import Pixels, decode, resize
from models.session import Device, is_accelerator, open_session

_OUTPUTS = ["score", "heatmap"]


class Loop:
    """Batches of camera images through a bundle's graph, one after the other."""

    def __init__(
        self, bundle: Path, images: list[bytes], *, device: Device = "cpu", threads: int = 0
    ) -> None:
        opened = open_bundle(bundle)
        self._session = open_session(opened.read(MODEL), device=device, threads=threads)
        self._manifest = opened.manifest
        self._images = images

    def run(self, size: int, seconds: float) -> list[float]:
        """What each batch took, in seconds, decoded and resized where it is run."""
        batches = (
            np.stack([self._read(number) for number in numbers]) for numbers in _numbers(size)
        )
        return self._timed(batches, seconds)

    def alone(self, size: int, seconds: float) -> list[float]:
        """What each batch took, in seconds, of images that were decoded and resized before."""
        batch = np.stack([self._read(number) for number in range(size)])
        return self._timed(itertools.repeat(batch), seconds)

    def fed(self, size: int, seconds: float) -> list[float]:
        """What each batch took, in seconds, decoded and resized ahead by all cores."""
        cores = os.cpu_count() or 1
        with ThreadPoolExecutor(cores) as pool:
            return self._timed(self._ahead(pool, size, cores), seconds)

    def _ahead(self, pool: ThreadPoolExecutor, size: int, cores: int) -> Iterator[Pixels]:
        waiting: deque[Future[Pixels]] = deque()
        numbers = itertools.count()
        while True:
            while len(waiting) < 2 * max(size, cores):
                waiting.append(pool.submit(self._read, next(numbers)))
            yield np.stack([waiting.popleft().result() for _ in range(size)])

    def _timed(self, batches: Iterator[Pixels], seconds: float) -> list[float]:
        """Each a batch and its run; the first, which makes the device ready, is left out."""
        run = self._bound(next(batches)) if is_accelerator(self._session) else self._plain
        run(next(batches))
        took: list[float] = []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            run(next(batches))
            took.append(time.perf_counter() - began)
        return took

    def _plain(self, batch: Pixels) -> None:
        self._session.run(_OUTPUTS, {"image": batch})

    def _bound(self, first: Pixels) -> "_Bound":
        return _Bound(self._session, first)

    def _read(self, number: int) -> Pixels:
        image = decode(self._images[number % len(self._images)], self._manifest.pixels)
        return resize(image, self._manifest.input)


class _Bound:
    """A run with its input and outputs on the device, as fast as ONNX Runtime has it."""

    def __init__(self, session: ort.InferenceSession, first: Pixels) -> None:
        self._session = session
        self._input = ort.OrtValue.ortvalue_from_numpy(first, "cuda", 0)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input("image", self._input)
        for name in _OUTPUTS:
            self._binding.bind_output(name, "cuda")

    def __call__(self, batch: Pixels) -> None:
        self._input.update_inplace(batch)
        self._session.run_with_iobinding(self._binding)
        self._binding.copy_outputs_to_cpu()


def _numbers(size: int) -> Iterator[list[int]]:
    counted = itertools.count()
    while True:
        yield list(itertools.islice(counted, size))
