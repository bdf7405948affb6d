"""`GET /v1/cameras`: what each camera's images came to."""

from fastapi import APIRouter

from service.routes.access import needs
from service.schemas import CameraCounts
from service.state import CurrentState

router = APIRouter(prefix="/v1", tags=["inspection"], dependencies=[needs("operator")])


@router.get("/cameras", operation_id="list_cameras")
async def list_cameras(state: CurrentState) -> list[CameraCounts]:
    """Since the service started, by the name that requests gave; "" is those that gave none."""
    return [
        CameraCounts(
            camera=camera,
            triggers=counts.triggers,
            ok=counts.outcomes["ok"],
            review=counts.outcomes["review"],
            ng=counts.outcomes["ng"],
            errors=counts.outcomes["error"],
            min_ms=round(1000 * counts.least_s, 1),
            mean_ms=round(1000 * counts.mean_s, 1),
            max_ms=round(1000 * counts.most_s, 1),
        )
        for camera, counts in sorted(state.metrics.cameras.counts.items())
    ]
