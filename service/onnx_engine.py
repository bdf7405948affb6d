"""A bundle in ONNX Runtime: loaded, warmed, and held to what training saw."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from models.bundle import GOLDEN, MODEL, Bundle
from models.errors import BundleError, ModelError
from models.golden import Golden
from models.image import Pixels
from models.session import Device, Precision, is_accelerator, open_session, provider_of
from service.engine import Outputs
from service.errors import EngineFailure


class OnnxEngine:
    """Runs a bundle's graph on the device where its golden vectors were just replayed."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device,
        threads: int,
        max_batch: int,
        precision: Precision = "fp32",
        buckets: Sequence[int] | None = None,
    ) -> None:
        """Load, warm and check. Raises BundleError, or DeviceError where a named device does not
        run.

        `buckets` are the only sizes of batches that the device sees; by default 1, 2, 4 … up to
        `max_batch` where a new size costs time, and any size on a CPU.
        """
        # The session is made from the very bytes that were hashed: a file read twice could change.
        try:
            self._session = open_session(
                bundle.read(MODEL), device=device, threads=threads, precision=precision
            )
            self.device = provider_of(self._session)
            golden = Golden.from_bytes(bundle.read(GOLDEN))
            if buckets is None:
                buckets = powers_of_two(max_batch) if is_accelerator(self._session) else ()
            # The largest first: memory that was taken is never given back, and the smaller fit in.
            self._buckets = [
                _Bucket(self._session, size, golden.images[0])
                for size in sorted(buckets, reverse=True)
            ]
            replayed = self.run(golden.images)
        except (ModelError, ValueError, KeyError, EngineFailure) as error:
            raise BundleError(f"{bundle.path} cannot be replayed: {error}") from error
        difference = golden.disagreement(replayed.scores, replayed.heatmaps)
        if difference:
            raise BundleError(
                f"{bundle.path} disagrees on {self.device} with what training saw: its "
                f"{difference}.",
                remedy="Serve it on another device, or export it again.",
            )

    def run(self, images: Pixels) -> Outputs:
        """Score a batch. Raises EngineFailure, also for numbers that are not finite."""
        try:
            outputs = self._run(images)
        except Exception as error:  # ONNX Runtime's exceptions share no base but this
            raise EngineFailure(f"The model failed on {self.device}.") from error
        if not (np.isfinite(outputs.scores).all() and np.isfinite(outputs.heatmaps).all()):
            raise EngineFailure(f"The model gave no number on {self.device}.")
        return outputs

    def _run(self, images: Pixels) -> Outputs:
        if not self._buckets:
            results: list[Any] = self._session.run(_OUTPUTS, {"image": images})
            return Outputs(results[0], results[1])
        most = self._buckets[0].size
        parts = [self._fit(images[i : i + most]) for i in range(0, len(images), most)]
        return Outputs(
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.heatmaps for part in parts]),
        )

    def _fit(self, images: Pixels) -> Outputs:
        """By the smallest bucket that they fit into."""
        bucket = next(b for b in reversed(self._buckets) if b.size >= len(images))
        return bucket.run(images)


_OUTPUTS = ["score", "heatmap"]


class _Bucket:
    """A size of batch, with memory on the device of its own. Made warm."""

    def __init__(self, session: ort.InferenceSession, size: int, image: Pixels) -> None:
        self.size = size
        self._session = session
        self._images = np.repeat(image[None], size, axis=0)
        place = "cuda" if is_accelerator(session) else "cpu"
        self._input = ort.OrtValue.ortvalue_from_numpy(self._images, place, 0)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input("image", self._input)
        for name in _OUTPUTS:
            self._binding.bind_output(name)
        self._session.run_with_iobinding(self._binding)

    def run(self, images: Pixels) -> Outputs:
        """Of the first `len(images)` items; what was there before fills the rest."""
        self._images[: len(images)] = images
        self._input.update_inplace(self._images)
        self._session.run_with_iobinding(self._binding)
        scores, heatmaps = self._binding.copy_outputs_to_cpu()
        return Outputs(scores[: len(images)], heatmaps[: len(images)])


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4 … and `most` itself."""
    return [*(2**i for i in range(most.bit_length()) if 2**i < most), most]
