"""The cluster's engines as the front sees them: as if each ran in its own process."""

import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle

from models.bundle import Bundle
from models.errors import KizuError
from models.image import Pixels
from service.cluster.replica import NotLoaded
from service.cluster.shelf import Shelf, packed
from service.engine import Outputs
from service.errors import DeadlinePassed, EngineFailure, NotReady, QueueFull
from service.scoring import Scored

Pool = DeploymentHandle[Any]

# Loading a bundle takes a device longer than an image does.
_LOADED_S = 300.0
# It may only have gone; whoever asks again is sent to another one.
_GONE = (RayActorError, DeploymentUnavailableError, ReplicaUnavailableError)
_AGAIN_S = 0.05


class RemoteDevice:
    """Pools of engines, each for its recipes."""

    def __init__(
        self,
        pools: Callable[[str], Pool],
        shelf: "ActorHandle[Shelf]",
        *,
        patience_s: float,
    ) -> None:
        """`pools` finds that of a recipe; a run that has not come back after `patience_s` never
        will."""
        self._pools = pools
        self._shelf = shelf
        self._patience_s = patience_s

    def open(self, bundle: Bundle) -> "RemoteEngine":
        """Have an engine of its pool load a bundle. Raises BundleError, DeviceError, NotReady."""
        pool = self._pools(bundle.manifest.recipe)
        return RemoteEngine(bundle, pool, self._shelf, self._patience_s)


class RemoteEngine:
    """A bundle, run by whichever device of its pool is free. May be called by many threads.

    Scoring changes nothing, so what a device did not answer is asked of another one.
    """

    def __init__(
        self, bundle: Bundle, pool: Pool, shelf: "ActorHandle[Shelf]", patience_s: float
    ) -> None:
        """Raises BundleError, DeviceError, DeadlinePassed, NotReady."""
        self._bundle = bundle
        self._pool = pool
        self._shelf = shelf
        self._patience_s = patience_s
        manifest = bundle.manifest
        self._key = (manifest.recipe, manifest.version, bundle.digest)
        self._send()
        weakref.finalize(self, shelf.drop.remote, bundle.digest)
        self.device: str = self._ask(
            lambda left_s: pool.open.remote(*self._key), time.monotonic() + _LOADED_S
        )

    def run(self, images: Pixels) -> Outputs:
        """The front gives them one by one: a device batches what comes from everywhere. Raises
        DeadlinePassed, QueueFull, NotReady or EngineFailure."""
        until = time.monotonic() + self._patience_s
        return _outputs([self._ask(partial(self._score, image), until) for image in images])

    def _score(self, image: Pixels, left_s: float) -> Any:
        return self._pool.score.remote(*self._key, image, left_s)

    def _ask(self, ask: Callable[[float], Any], until: float) -> Any:
        """What a device answers; another one, where it has gone."""
        while True:
            left_s = until - time.monotonic()
            response = ask(left_s)
            try:
                return response.result(timeout_s=max(0.0, left_s))
            except TimeoutError as error:
                response.cancel()
                raise DeadlinePassed(
                    "No device of the pool answered in time.",
                    remedy="Treat the part as not inspected.",
                ) from error
            except BackPressureError as error:
                raise QueueFull(
                    "More images wait for the pool than may.",
                    remedy="Send it again a little later, or give the pool more replicas.",
                ) from error
            except _GONE as error:
                if left_s <= 0:
                    raise NotReady(f"No device of the pool is there: {error}") from error
            except RayTaskError as error:
                if isinstance(error.cause, NotLoaded):
                    self._send()  # it is a new one, and the shelf is, too
                elif not isinstance(error.cause, NotReady) or left_s <= 0:
                    raise _own(error) from error
            time.sleep(_AGAIN_S)  # nobody tells when another one is there

    def _send(self) -> None:
        self._shelf.put.remote(self._bundle.digest, packed(self._bundle))


def _own(error: RayTaskError) -> KizuError:
    """What was raised over there, without Ray's wrapping."""
    cause = error.cause
    return cause if isinstance(cause, KizuError) else EngineFailure(f"An engine failed: {cause}")


def _outputs(scored: Sequence[Scored]) -> Outputs:
    return Outputs(
        np.array([one.score for one in scored], np.float32),
        np.stack([one.heatmap for one in scored]),
    )
