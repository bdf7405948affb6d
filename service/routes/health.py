"""`/health/live`, `/health/ready`, `/metrics`."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.schemas import Health
from service.state import CurrentState

router = APIRouter(tags=["health"])


@router.get("/health/live", operation_id="live")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@router.get("/health/ready", operation_id="ready", responses={503: {"model": Health}})
async def ready(response: Response, state: CurrentState) -> Health:
    """Whether images can be inspected; each recipe with the device that really runs it."""
    champions, watchdog = state.registry.champions, state.watchdog
    lost, away = watchdog.problem, watchdog.absence
    able = bool(champions) and not lost and not away
    if not able:
        response.status_code = 503
    return Health(
        status="ready" if able else "not ready",
        recipes={
            recipe: f"version {champion.bundle.manifest.version} on {champion.device}"
            for recipe, champion in champions.items()
        },
        problems=[
            *([f"The device is lost. {lost}"] if lost else []),
            *([f"The device is away. {away}"] if away else []),
            *(
                one.problem
                for one in (state.archive, state.ledger, state.blobs, state.retention)
                if one.problem
            ),
            *state.registry.problems,
            *(state.mirror.problems if state.mirror else []),
        ],
    )


@router.get("/metrics", operation_id="metrics", include_in_schema=False)
async def metrics(state: CurrentState) -> Response:
    """The collectors in Prometheus' text format."""
    bundle = state.metrics.bundle
    bundle.clear()
    for recipe, champion in state.registry.champions.items():
        bundle.labels(recipe, champion.device).set(champion.bundle.manifest.version)
    state.metrics.drift.clear()
    for camera in state.drift.report(state.registry.manifests):
        for trend in camera.trends:
            if trend.outside is not None:
                gauge = state.metrics.drift.labels(camera.recipe, camera.camera, trend.measure)
                gauge.set(trend.outside)
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
