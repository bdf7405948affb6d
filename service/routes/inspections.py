"""What inspections left behind: results, images, heatmaps."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar, cast

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from models.appearance import Appearance
from models.bundle import Verdict
from service.errors import NotFound
from service.routes.access import Caller, needs
from service.routes.decisions import promotion_record, recipe_record, thresholds_record
from service.routes.inspect import IMAGE_TYPES
from service.routes.problems import PROBLEMS, files
from service.routes.results import (
    FOREVER,
    HEATMAP_TYPES,
    kept_file,
    render,
    result_of,
    summary_of,
)
from service.schemas import (
    CandidateResult,
    FeedbackSummary,
    HeatmapFormat,
    InspectionPage,
    InspectionResult,
    InspectionTrail,
)
from service.state import CurrentState, State
from service.store import drafts, records
from service.store.tables import Inspection
from service.store.wanted import Wanted
from service.wire import Name

T = TypeVar("T")

router = APIRouter(prefix="/v1/inspections", tags=["inspection"], dependencies=[needs("camera")])

DRAFT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class InspectionQuery(Wanted):
    """A page of what is wanted."""

    before: Name | None = None
    limit: Annotated[int, Query(ge=1, le=records.PAGE)] = 50


@router.get("", operation_id="list_inspections", dependencies=[needs("operator")])
async def list_inspections(
    state: CurrentState,
    wanted: Annotated[InspectionQuery, Query()],
) -> InspectionPage:
    """Inspections, the newest first; `before` is the `next` of the page before."""

    def read(session: Session) -> InspectionPage:
        last = _found(session, wanted.before) if wanted.before else None
        rows = records.inspections(session, wanted, before=last, limit=wanted.limit)
        feedback = records.latest_feedback(session, [row.id for row in rows])
        return InspectionPage(
            items=[result_of(row, feedback.get(row.id)) for row in rows],
            next=rows[-1].id if len(rows) == wanted.limit else None,
        )

    return await _reading(state, read)


@router.get("/{id}", operation_id="get_inspection", responses=PROBLEMS)
async def get_inspection(state: CurrentState, id: str) -> InspectionResult:
    """One inspection with its newest label."""

    def read(session: Session) -> InspectionResult:
        row = _found(session, id)
        return result_of(row, records.latest_feedback(session, [id]).get(id))

    return await _reading(state, read)


@router.get(
    "/{id}/image",
    operation_id="get_image",
    dependencies=[needs("operator")],
    response_class=Response,
    responses=PROBLEMS | files(*IMAGE_TYPES),
)
async def get_image(state: CurrentState, id: str) -> Response:
    """The image as it came."""

    def read(session: Session) -> Response:
        row = _found(session, id)
        return kept_file(state, row.image_sha256, row.image_type)

    return await _reading(state, read)


@router.get(
    "/{id}/heatmap",
    operation_id="get_heatmap",
    response_class=Response,
    responses=PROBLEMS | files(*HEATMAP_TYPES.values()),
)
async def get_heatmap(state: CurrentState, id: str, format: HeatmapFormat = "png8") -> Response:
    """The heatmap: png8 or png16 (linear over `heatmap_range`), npy (raw), or an overlay JPEG."""

    def read(session: Session) -> Response:
        row = _found(session, id)
        return Response(
            render(state, row, format), media_type=HEATMAP_TYPES[format], headers=FOREVER
        )

    return await _reading(state, read)


@router.get(
    "/{id}/trail", operation_id="get_trail", dependencies=[needs("operator")], responses=PROBLEMS
)
async def get_trail(state: CurrentState, id: str) -> InspectionTrail:
    """All that decided an inspection, by whom and why, and all that was said of it."""

    def read(session: Session) -> InspectionTrail:
        row = _found(session, id)
        revision = records.thresholds_revision_at(session, row)
        promotion = records.promotion_at(session, row)
        recipe = records.recipe_revision(session, row.recipe_revision or 0)
        appearance = {name: getattr(row, name) for name in Appearance.model_fields}
        labels = records.labels_of(session, id, standing=False)
        standing = records.latest_feedback(session, [id]).get(id)
        return InspectionTrail(
            inspection=result_of(row, standing),
            thresholds_revision=thresholds_record(revision) if revision else None,
            promotion=promotion_record(promotion) if promotion else None,
            recipe_revision=recipe_record(recipe) if recipe else None,
            appearance=None if None in appearance.values() else Appearance(**appearance),
            labels=[summary_of(label) for label in labels],
            candidates=[
                CandidateResult(
                    bundle_version=shadow.bundle_version,
                    bundle_digest=shadow.bundle_digest,
                    verdict=cast(Verdict, shadow.verdict),
                    score=shadow.score,
                )
                for shadow in records.shadows_of(session, id)
            ],
        )

    return await _reading(state, read)


@router.get(
    "/{id}/feedback",
    operation_id="list_feedback",
    dependencies=[needs("operator")],
    responses=PROBLEMS,
)
async def list_feedback(state: CurrentState, id: str) -> list[FeedbackSummary]:
    """All that was ever said of an inspection, the newest first; what was taken back, too."""

    def read(session: Session) -> list[FeedbackSummary]:
        _found(session, id)
        return [summary_of(row) for row in records.labels_of(session, id, standing=False)]

    return await _reading(state, read)


@router.get(
    "/{id}/draft",
    operation_id="get_draft",
    dependencies=[needs("operator")],
    response_class=Response,
    responses=PROBLEMS | files("image/png") | {204: {"description": "None was begun."}},
)
async def get_draft(state: CurrentState, caller: Caller, id: str, operator: Name) -> Response:
    """The mask that an operator is drawing, as PNG; nothing (204) where none was begun."""

    def read(session: Session) -> Response:
        _found(session, id)
        png = drafts.find(session, id, caller.signature(operator))
        return Response(png, media_type="image/png") if png else Response(status_code=204)

    return await _reading(state, read)


@router.put(
    "/{id}/draft",
    operation_id="keep_draft",
    dependencies=[needs("operator")],
    status_code=204,
    openapi_extra=DRAFT_BODY,
    responses=PROBLEMS,
)
async def keep_draft(
    request: Request, state: CurrentState, caller: Caller, id: str, operator: Name
) -> None:
    """Keep a mask while it is drawn: a PNG of the image's size. A label takes its place."""
    png = await request.body()
    await to_thread.run_sync(state.labels.keep_draft, id, caller.signature(operator), png)


@router.delete(
    "/{id}/draft",
    operation_id="remove_draft",
    dependencies=[needs("operator")],
    status_code=204,
    responses=PROBLEMS,
)
async def remove_draft(state: CurrentState, caller: Caller, id: str, operator: Name) -> None:
    """Let go of a mask that was begun."""

    def remove(session: Session) -> None:
        _found(session, id)
        drafts.remove(session, id, caller.signature(operator))
        session.commit()

    await _reading(state, remove)


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
