"""A bundle in ONNX Runtime: loaded, warmed, and held to what training saw."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime as ort

from models.bundle import GOLDEN, MODEL, Bundle
from models.errors import BundleError, ModelError
from models.golden import Golden
from models.image import Pixels
from models.session import ON_CORES, is_accelerator, open_session, provider_of, resolved
from service.engine import Outputs
from service.errors import EngineFailure
from service.settings import Settings


class OnnxDevice:
    """What the settings ask for, and how much it does at once: `lanes` runs of `max_batch` images.

    On a CPU, a run that is alone is over soonest with all cores. Runs beside each other have a
    part of them each: threads of one run wait for each other, longest where others are on their
    cores, and spin for a while when it is over. `under_way` says how many images are anywhere
    between arrival and answer: they need the cores, too. Larger batches gain nothing there.
    """

    def __init__(self, settings: Settings, *, under_way: Callable[[], int] = lambda: 0) -> None:
        self._settings = settings
        self.precision = settings.precision
        self._under_way = under_way
        self.on_cores = resolved(settings.device) in ON_CORES
        self._records = settings.cuda_graphs and resolved(settings.device) == "cuda"
        self.threads = settings.threads or os.cpu_count() or 1
        self.lanes = min(self.threads, 4) if self.on_cores else 1
        self.max_batch = settings.max_batch or (1 if self.on_cores else 8)
        self._running = 0
        self._lock = threading.Lock()

    @property
    def limits(self) -> tuple[int, int]:
        """Lanes, and images in a run."""
        return self.lanes, self.max_batch

    def open(self, bundle: Bundle) -> "OnnxEngine":
        """Load a bundle. Raises BundleError or DeviceError."""
        return OnnxEngine(bundle, self)

    def records(self, bundle: Bundle) -> bool:
        """Whether runs of a bundle are CUDA graphs. What sees tiles is a loop, which none holds."""
        return self._records and not bundle.manifest.input.tile

    def session(
        self, model: bytes, threads: int, *, recorded: bool = False
    ) -> ort.InferenceSession:
        """A session of a model by the settings. Raises ModelError or DeviceError."""
        return open_session(
            model, device=self._settings.device, threads=threads,
            precision=self.precision, recorded=recorded,
        )  # fmt: skip

    @contextmanager
    def run(self, count: int) -> Iterator[bool]:
        """Around a run of so many images; whether they are alone when it begins."""
        with self._lock:
            self._running += 1
            alone = self._running == 1 and self._under_way() <= count
        try:
            yield alone
        finally:
            with self._lock:
                self._running -= 1


class OnnxEngine:
    """Runs a bundle's graph on the device where its golden vectors were just replayed.

    On a CPU, `run` may be called by several threads at once.
    """

    def __init__(
        self, bundle: Bundle, device: OnnxDevice, *, buckets: Sequence[int] | None = None
    ) -> None:
        """Load, warm and check. Raises BundleError, or DeviceError where a named device does not
        run.

        `buckets` are the only sizes of batches that the device sees; by default 1, 2, 4 … up to
        the device's most where a new size costs time, and any size on a CPU.
        """
        # The session is made from the very bytes that were hashed: a file read twice could change.
        try:
            model = bundle.read(MODEL)
            recorded = device.records(bundle)
            self._session = device.session(model, device.threads, recorded=recorded)
            self.device = provider_of(self._session)
            self._shared = device
            self._narrow = self._session
            if device.lanes > 1:
                self._narrow = device.session(model, device.threads // device.lanes)
            golden = Golden.from_bytes(bundle.read(GOLDEN))
            self._heatmap = golden.heatmaps.shape[1:]
            if buckets is None:
                buckets = () if device.on_cores else powers_of_two(device.max_batch)
            # The largest first: memory that was taken is never given back, and the smaller fit in.
            # A session knows how to convolve one size: given another, cuDNN plans each convolution
            # anew, every time, some milliseconds each. A recording plans nothing: many share one.
            sizes = sorted(buckets, reverse=True)
            alike = recorded or device.on_cores
            own = {
                size: self._session if alike or size == sizes[0]
                else device.session(model, device.threads)
                for size in sizes
            }  # fmt: skip
            self._buckets = [_Bucket(own[size], size, golden, recorded=recorded) for size in sizes]
            replayed = list(self._replay(golden.images))
        except (ModelError, ValueError, KeyError, EngineFailure) as error:
            raise BundleError(f"{bundle.path} cannot be replayed: {error}") from error
        found = (
            golden.disagreement(one.scores, one.heatmaps, precision=device.precision)
            for one in replayed
        )
        difference = next((each for each in found if each), None)
        if difference:
            raise BundleError(
                f"{bundle.path} disagrees on {self.device} with what training saw: its "
                f"{difference}.",
                remedy="Serve it on another device, or export it again.",
            )

    def run(self, images: Pixels) -> Outputs:
        """Score a batch. Raises EngineFailure, also for outputs of another shape than they must
        have, and for numbers that are not finite."""
        try:
            outputs = self._run(images)
            shapes = outputs.scores.shape, outputs.heatmaps.shape
            finite = np.isfinite(outputs.scores).all() and np.isfinite(outputs.heatmaps).all()
        except Exception as error:  # ONNX Runtime's exceptions share no base but this
            raise EngineFailure(f"The model failed on {self.device}.") from error
        if shapes != ((len(images),), (len(images), *self._heatmap)):
            raise EngineFailure(f"The model gave outputs of the shapes {shapes} on {self.device}.")
        if not finite:
            raise EngineFailure(f"The model gave no number on {self.device}.")
        return outputs

    def _run(self, images: Pixels) -> Outputs:
        if not self._buckets:
            with self._shared.run(len(images)) as alone:
                session = self._session if alone else self._narrow
                results: list[Any] = session.run(_OUTPUTS, {"image": images})
            return Outputs(results[0], results[1])
        most = self._buckets[0].size
        return _joined([self._fit(images[i : i + most]) for i in range(0, len(images), most)])

    def _replay(self, images: Pixels) -> Iterator[Outputs]:
        """These images by each way that a run can take: a recording that is right of one size says
        nothing of the others."""
        yield self.run(images)
        with self._shared.run(1):  # as if another was under way
            yield self.run(images)
        for bucket in self._buckets:
            starts = range(0, len(images), bucket.size)
            yield _joined([bucket.run(images[i : i + bucket.size]) for i in starts])

    def _fit(self, images: Pixels) -> Outputs:
        """By the smallest bucket that they fit into."""
        bucket = next(b for b in reversed(self._buckets) if b.size >= len(images))
        return bucket.run(images)


_OUTPUTS = ["score", "heatmap"]
_UNTIL_RECORDED = 3


class _Bucket:
    """A size of batch, with memory on the device of its own. Made warm.

    Where it is `recorded`, the device repeats the launches of an earlier run: the golden vectors
    that are replayed later go through the recording.
    """

    def __init__(
        self, session: ort.InferenceSession, size: int, golden: Golden, *, recorded: bool
    ) -> None:
        self.size = size
        self._session = session
        self._images = np.repeat(golden.images[:1], size, axis=0)
        place = "cuda" if is_accelerator(session) else "cpu"
        self._input = ort.OrtValue.ortvalue_from_numpy(self._images, place, 0)
        shapes = {"score": [size], "heatmap": [size, *golden.heatmaps.shape[1:]]}
        self._outputs = {
            name: ort.OrtValue.ortvalue_from_shape_and_type(shapes[name], np.float32, place, 0)
            for name in _OUTPUTS
        }
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input("image", self._input)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self._options = ort.RunOptions()
        if recorded:
            self._options.add_run_config_entry("gpu_graph_id", str(size))
        # The first runs of a recording take memory, the next is recorded.
        for _ in range(_UNTIL_RECORDED if recorded else 1):
            self._launch()

    def run(self, images: Pixels) -> Outputs:
        """Of the first `len(images)` items; what was there before fills the rest."""
        self._images[: len(images)] = images
        self._input.update_inplace(self._images)
        self._launch()
        scores, heatmaps = self._binding.copy_outputs_to_cpu()
        return Outputs(scores[: len(images)], heatmaps[: len(images)])

    def _launch(self) -> None:
        self._session.run_with_iobinding(self._binding, self._options)


def _joined(parts: Sequence[Outputs]) -> Outputs:
    """Of one batch after the other."""
    return Outputs(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.heatmaps for part in parts]),
    )


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4 … and `most` itself."""
    return [*(2**i for i in range(most.bit_length()) if 2**i < most), most]
