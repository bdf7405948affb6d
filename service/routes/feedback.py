"""`/v1/feedback`: operators' labels, on disk before the answer, and their masks."""

from anyio import to_thread
from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from service.errors import NotFound
from service.routes.access import Caller, check_desk, needs
from service.routes.problems import PROBLEMS, IdempotencyKey, files
from service.routes.results import FOREVER, kept
from service.schemas import FeedbackRequest, FeedbackResult
from service.state import CurrentState
from service.store import records

router = APIRouter(prefix="/v1", tags=["feedback"], dependencies=[needs("operator")])


@router.post("/feedback", operation_id="give_feedback", status_code=201, responses=PROBLEMS)
async def give_feedback(
    label: FeedbackRequest,
    state: CurrentState,
    caller: Caller,
    idempotency_key: IdempotencyKey = None,
) -> FeedbackResult:
    """Label an inspection. Labels are appended; the newest of an inspection counts."""
    check_desk(caller, label.desk)
    row = await to_thread.run_sync(state.labels.add, caller.sign(label), idempotency_key)
    state.metrics.feedback.labels(row.verdict).inc()
    return FeedbackResult(id=row.id, inspection_id=row.inspection_id, creation_time=row.created_at)


@router.get(
    "/feedback/{id}/mask",
    operation_id="get_mask",
    response_class=Response,
    responses=PROBLEMS | files("image/png"),
)
async def get_mask(state: CurrentState, id: str) -> Response:
    """The mask that was drawn with a label: a PNG, 255 where the part is defective."""

    def read() -> Response:
        with Session(state.database) as session:
            label = records.feedback(session, id)
        if label is None or label.mask_sha256 is None:
            raise NotFound(f"There is no label {id!r} with a mask.")
        mask = kept(state, label.mask_sha256)
        return Response(mask, media_type="image/png", headers=FOREVER)

    return await to_thread.run_sync(read)
