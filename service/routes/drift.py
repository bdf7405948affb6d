"""`GET /v1/drift`: whether images still look as those did that the models were trained on."""

from anyio import to_thread
from fastapi import APIRouter

from service.drift import CameraDrift
from service.routes.access import needs
from service.schemas import DriftReport, DriftTrend
from service.state import CurrentState

router = APIRouter(prefix="/v1", tags=["inspection"], dependencies=[needs("operator")])


@router.get("/drift", operation_id="report_drift")
async def report_drift(state: CurrentState) -> list[DriftReport]:
    """Of each recipe and camera: scores, brightness, focus and saturation of the last images."""
    manifests = state.registry.manifests
    found = await to_thread.run_sync(state.drift.report, manifests)
    return [_shown(camera) for camera in found]


def _shown(camera: CameraDrift) -> DriftReport:
    return DriftReport(
        recipe_id=camera.recipe,
        camera=camera.camera,
        images=camera.images,
        state=camera.state,
        trends=[DriftTrend.model_validate(vars(trend)) for trend in camera.trends],
    )
