"""A device of the cluster: the service's engine and batcher, asked from other processes."""

import asyncio
import time
from collections.abc import Callable

from models.bundle import GOLDEN, MODEL, Bundle
from models.golden import Golden
from models.image import Pixels
from service.cluster.shelf import find_shelf, unpacked
from service.engine import Engine
from service.errors import DeadlinePassed, NotFound, NotReady, QueueFull
from service.logs import configure_logging
from service.metrics import Metrics
from service.onnx_engine import OnnxDevice
from service.registry import Loaded
from service.scoring import Scored, image_batcher
from service.settings import Settings
from service.watchdog import Watchdog

# Of models that nobody has asked for so long, none is kept.
_KEPT_S = 600.0
QUEUE_AGE = "queue_age_s"


class NotLoaded(NotFound):
    """A bundle that this device does not have, and that nobody has sent."""


class EngineReplica:
    """One of a pool. Images of several bundles wait in one queue for it, as in a process of the
    service; it watches itself, and is replaced once it does not do what it did."""

    def __init__(
        self,
        *,
        open_engine: Callable[[Bundle], Engine] | None = None,
        limits: tuple[int, int] | None = None,
    ) -> None:
        configure_logging()
        settings = Settings()
        device = OnnxDevice(settings)
        lanes, max_batch = limits or device.limits
        self._open_engine = open_engine or device.open
        self._loaded: dict[str, Loaded] = {}
        self._asked: dict[str, float] = {}
        self._loading: dict[str, asyncio.Task[Loaded]] = {}
        self._batcher = image_batcher(settings, Metrics(), lanes=lanes, max_batch=max_batch)
        self._watchdog = Watchdog(
            lambda: list(self._loaded.values()), self._batcher, every_s=settings.canary_seconds,
            hang_s=settings.hang_seconds, precision=settings.precision, give_up=lambda: None,
        )  # fmt: skip
        self._watchdog.start()

    async def open(self, recipe: str, version: int, digest: str) -> str:
        """Load a bundle; on which device. Raises BundleError, DeviceError, NotLoaded."""
        return (await self._find(recipe, version, digest)).engine.device

    async def score(
        self, recipe: str, version: int, digest: str, image: Pixels, left_s: float
    ) -> Scored:
        """Of one image, of the size that the bundle's model takes, within so many seconds.

        Raises what `open` does, QueueFull, DeadlinePassed, EngineFailure and NotReady.
        """
        deadline = time.monotonic() + left_s
        self._watchdog.check()
        loaded = await self._find(recipe, version, digest)
        future = self._batcher.submit(loaded, image, deadline=deadline)
        try:
            return await asyncio.wrap_future(future)
        except (QueueFull, DeadlinePassed, NotReady):
            raise
        except Exception:  # whatever else it is, the device did not answer
            self._watchdog.suspect()
            raise

    def record_autoscaling_stats(self) -> dict[str, float]:
        """For Ray: how long the oldest image has been waiting."""
        return {QUEUE_AGE: self._batcher.age}

    def check_health(self) -> None:
        """For Ray, which replaces what raises. Raises NotReady."""
        self._watchdog.check()

    async def _find(self, recipe: str, version: int, digest: str) -> Loaded:
        self._asked[digest] = time.monotonic()
        if digest in self._loaded:
            return self._loaded[digest]
        if digest not in self._loading:
            self._forget()
            self._loading[digest] = asyncio.create_task(self._load(recipe, version, digest))
        return await asyncio.shield(self._loading[digest])  # others wait for it, too

    async def _load(self, recipe: str, version: int, digest: str) -> Loaded:
        try:
            files = await find_shelf().get.remote(digest)
            if files is None:
                raise NotLoaded(f"Nobody has sent version {version} of {recipe!r} here.")
            loaded = await asyncio.to_thread(self._open, files, recipe, version, digest)
            self._loaded[digest] = loaded
            return loaded
        finally:
            del self._loading[digest]

    def _open(self, files: dict[str, bytes], recipe: str, version: int, digest: str) -> Loaded:
        with unpacked(files, recipe, version, digest) as bundle:
            known = Golden.from_bytes(bundle.read(GOLDEN)).first
            return Loaded(bundle, self._open_engine(bundle), len(files[MODEL]), known)

    def _forget(self) -> None:
        now = time.monotonic()
        for digest in [one for one, asked in self._asked.items() if asked < now - _KEPT_S]:
            self._loaded.pop(digest, None)
            del self._asked[digest]
