"""A bundle in ONNX Runtime: loaded, warmed, and held to what training saw."""

from typing import Any

import numpy as np

from models.bundle import GOLDEN, MODEL, Bundle
from models.errors import BundleError, ModelError
from models.golden import Golden
from models.image import Pixels
from models.session import Device, open_session, provider_of
from service.engine import Outputs
from service.errors import EngineFailure


class OnnxEngine:
    """Runs a bundle's graph on the device where its golden vectors were just replayed."""

    def __init__(self, bundle: Bundle, *, device: Device, threads: int) -> None:
        """Load and check. Raises BundleError, or DeviceError where a named device does not run."""
        # The session is made from the very bytes that were hashed: a file read twice could change.
        try:
            self._session = open_session(bundle.read(MODEL), device=device, threads=threads)
            self.device = provider_of(self._session)
            golden = Golden.from_bytes(bundle.read(GOLDEN))
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
        results: list[Any] = self._session.run(["score", "heatmap"], {"image": images})
        return Outputs(results[0], results[1])
