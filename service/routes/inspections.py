"""What inspections left behind: results, images, heatmaps."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from models.bundle import Verdict
from service.errors import NotFound
from service.routes.problems import PROBLEMS
from service.routes.results import HEATMAP_TYPES, kept, render, result_of
from service.schemas import HeatmapFormat, InspectionPage, InspectionResult, Name
from service.state import CurrentState, State
from service.store import records
from service.store.tables import Inspection

T = TypeVar("T")

router = APIRouter(prefix="/v1/inspections", tags=["inspection"])

# An image or a heatmap of an inspection never changes.
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}


@router.get("", operation_id="list_inspections")
async def list_inspections(
    state: CurrentState,
    recipe: Name | None = None,
    verdict: Verdict | None = None,
    part_id: Name | None = None,
    before: str | None = None,
    limit: Annotated[int, Query(ge=1, le=records.PAGE)] = 50,
) -> InspectionPage:
    """Inspections, the newest first; `before` is the `next` of the page before."""

    def read(session: Session) -> InspectionPage:
        last = _found(session, before) if before else None
        rows = records.inspections(
            session, recipe=recipe, verdict=verdict, part_id=part_id, before=last, limit=limit
        )
        feedback = records.latest_feedback(session, [row.id for row in rows])
        return InspectionPage(
            items=[result_of(row, feedback.get(row.id)) for row in rows],
            next=rows[-1].id if len(rows) == limit else None,
        )

    return await _reading(state, read)


@router.get("/{id}", operation_id="get_inspection", responses=PROBLEMS)
async def get_inspection(state: CurrentState, id: str) -> InspectionResult:
    """One inspection with its newest label."""

    def read(session: Session) -> InspectionResult:
        row = _found(session, id)
        return result_of(row, records.latest_feedback(session, [id]).get(id))

    return await _reading(state, read)


@router.get("/{id}/image", operation_id="get_image", responses=PROBLEMS)
async def get_image(state: CurrentState, id: str) -> Response:
    """The image as it came."""

    def read(session: Session) -> Response:
        row = _found(session, id)
        data = kept(state, row.image_sha256)
        return Response(data, media_type=row.image_type, headers=FOREVER)

    return await _reading(state, read)


@router.get("/{id}/heatmap", operation_id="get_heatmap", responses=PROBLEMS)
async def get_heatmap(state: CurrentState, id: str, format: HeatmapFormat = "png8") -> Response:
    """The heatmap: png8 or png16 (linear over `heatmap_range`), npy (raw), or an overlay JPEG."""

    def read(session: Session) -> Response:
        row = _found(session, id)
        return Response(
            render(state, row, format), media_type=HEATMAP_TYPES[format], headers=FOREVER
        )

    return await _reading(state, read)


async def _reading(state: State, read: Callable[[Session], T]) -> T:
    def call() -> T:
        with Session(state.database) as session:
            return read(session)

    return await to_thread.run_sync(call)


def _found(session: Session, id: str) -> Inspection:
    row = records.inspection(session, id) if records.is_id(id) else None
    if row is None:
        raise NotFound(f"There is no inspection {id!r}.", remedy="Use the id of a result.")
    return row
