"""What `serve deploy` is told to build: see deploy/ray/serve.yaml."""

import os
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, cast

from pydantic import ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle

from models.bundle import Bundle
from service.app import create_app
from service.cluster.pools import Pool, Pools
from service.cluster.remote import RemoteDevice
from service.cluster.replica import EngineReplica
from service.cluster.scaling import ByQueueAge
from service.cluster.shelf import find_shelf
from service.engine import Engine
from service.errors import NotReady
from service.logs import configure_logging
from service.settings import Settings, SettingsError

# Images of a front that are anywhere between it and an answer of a device.
AT_ONCE = 64
_HEALTH_S = 5
_FAST, _LOOP = "THROUGHPUT_OPTIMIZED", "RUN_ROUTER_IN_SEPARATE_LOOP"


class Front:
    """All of the service but its engines, as one replica: it has the disk, and the database."""

    def __init__(self, pools: Pools, handles: dict[str, DeploymentHandle[Any]]) -> None:
        """Raises SettingsError."""
        configure_logging()
        # The batcher's threads ask for engines, and have no event loop that Ray could use.
        flags = {name: os.environ.get(f"RAY_SERVE_{name}", "0") for name in (_FAST, _LOOP)}
        if flags[_FAST] == "1" != flags[_LOOP]:
            raise SettingsError(
                f"RAY_SERVE_{_FAST}=1 is set without RAY_SERVE_{_LOOP}=1.",
                remedy="Set both on every node before `ray start`.",
            )
        self._pools = pools
        self._handles = handles
        self._lost = threading.Event()

    def __serve_build_asgi_app__(self) -> "_Stateful":
        settings = Settings()
        if settings.access == "auto":  # whatever it listens on, others can get here
            settings = settings.model_copy(update={"access": "closed"})
        device = RemoteDevice(
            lambda recipe: self._handles[self._pools.of(recipe).name], find_shelf(),
            patience_s=settings.deadline_ms / 1000,
        )  # fmt: skip
        return _Stateful(
            create_app(
                settings, open_engine=device.open, limits=(AT_ONCE, 1), give_up=self._lost.set
            )
        )

    def check_health(self) -> None:
        """For Ray, which replaces what raises. Raises NotReady."""
        if self._lost.is_set():
            raise NotReady("No engine does what it should.")


class _Stateful:
    """An application whose requests get what its lifespan began with: uvicorn does that, and Ray
    does not."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app
        self._state: dict[str, Any] = {}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        scope["state"] = self._state if scope["type"] == "lifespan" else dict(self._state)
        await self._app(scope, receive, send)


def build(
    arguments: dict[str, Any],
    *,
    open_engine: Callable[[Bundle], Engine] | None = None,
    limits: tuple[int, int] | None = None,
) -> Application:
    """The application, of its arguments in a configuration file. Raises SettingsError.

    `open_engine` puts other engines in the place of ONNX Runtime's.
    """
    try:
        pools = Pools.model_validate(arguments)
    except ValidationError as error:
        raise SettingsError(
            f"The application's args are not right: {error}", remedy="See deploy/README.md."
        ) from error
    pools.check(Settings())
    engines = {
        pool.name: _pool(pool).bind(open_engine=open_engine, limits=limits) for pool in pools.pools
    }
    apart: Any = {"max_replicas_per_node": 1} if pools.fronts > 1 else {}
    front: Any = serve.deployment(
        serve.ingress()(Front),
        name="front",
        ray_actor_options=pools.front,
        num_replicas=pools.fronts,
        max_ongoing_requests=4 * AT_ONCE,
        health_check_period_s=_HEALTH_S,
        **apart,
    )
    return cast(Application, front.bind(pools, engines))


def _pool(pool: Pool) -> Any:
    settings = Settings()
    policy = AutoscalingPolicy(  # type: ignore[no-untyped-call]
        policy_function=ByQueueAge,
        policy_kwargs={"most_s": pool.queue_age_s, "at_once": settings.max_batch or 8},
    )
    return serve.deployment(
        EngineReplica,
        name=pool.name,
        ray_actor_options=pool.actor,
        max_ongoing_requests=settings.max_queue,
        max_queued_requests=settings.max_queue,
        health_check_period_s=_HEALTH_S,
        autoscaling_config=AutoscalingConfig(
            min_replicas=pool.min_replicas,
            max_replicas=pool.max_replicas,
            metrics_interval_s=1.0,
            look_back_period_s=5.0,
            upscale_delay_s=5.0,
            downscale_delay_s=300.0,
            policy=policy,
        ),
    )


def kizu(arguments: dict[str, Any]) -> Application:
    """What the configuration file names."""
    return build(arguments)
