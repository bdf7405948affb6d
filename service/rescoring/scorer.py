"""A device that looks at images again."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import fsspec

from models.bundle import GOLDEN, Bundle
from models.errors import KizuError
from models.golden import Golden
from models.image import decode, resize, without_borders
from service.decision import decide
from service.engine import Engine
from service.metrics import Metrics
from service.onnx_engine import OnnxDevice
from service.registry import Loaded
from service.rescoring.images import OldImage
from service.rescoring.plan import Terms
from service.rescoring.verdict import NewVerdict
from service.scoring import image_batcher
from service.settings import Settings


class Scorer:
    """The service's batcher around one bundle: images are read and decoded while it runs."""

    def __init__(
        self, bundle: Bundle, terms: Terms, settings: Settings,
        *,
        open_engine: Callable[[Bundle], Engine] | None = None,
    ) -> None:  # fmt: skip
        """Raises BundleError or DeviceError."""
        device = OnnxDevice(settings)
        lanes, max_batch = device.limits
        engine = (open_engine or device.open)(bundle)
        known = Golden.from_bytes(bundle.read(GOLDEN)).first
        self._loaded = Loaded(bundle, engine, 0, known)
        self._terms = terms
        self._max_pixels = settings.max_pixels
        self._batcher = image_batcher(settings, Metrics(), lanes=lanes, max_batch=max_batch)
        # As many as the device takes at once, as many to take their place, and those being read.
        most = min(2 * lanes * max_batch, settings.max_queue) + (os.cpu_count() or 1)
        self._readers = ThreadPoolExecutor(most, thread_name_prefix="kizu-rescore")

    def score(self, images: Sequence[OldImage]) -> list[NewVerdict]:
        """What it says of each, in their order. Raises ServiceError where the device fails."""
        return list(self._readers.map(self._one, images))

    def close(self) -> None:
        """End its threads."""
        self._readers.shutdown()
        self._batcher.close()

    def _one(self, image: OldImage) -> NewVerdict:
        manifest = self._loaded.bundle.manifest
        try:
            with fsspec.open(image.address, "rb") as file:
                data = file.read()
            pixels = decode(data, manifest.pixels, max_pixels=self._max_pixels)
        except (OSError, KizuError) as error:  # one that cannot be read is a finding
            return NewVerdict(**dict(image), new_verdict="error", problem=str(error))
        height, width = pixels.shape[:2]
        future = self._batcher.submit(
            self._loaded, resize(pixels, manifest.input), deadline=math.inf, priority="first"
        )
        scored = future.result()
        terms = self._terms
        made = decide(
            scored.score,
            without_borders(scored.heatmap, manifest.input, width=width, height=height),
            terms.thresholds, terms.settings,
            width=width, height=height,
        )  # fmt: skip
        return NewVerdict(**dict(image), new_verdict=made.verdict, new_score=made.score)
