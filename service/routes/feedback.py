"""`POST /v1/feedback`: an operator's label, on disk before the answer."""

from anyio import to_thread
from fastapi import APIRouter

from service.routes.problems import PROBLEMS, IdempotencyKey
from service.schemas import FeedbackRequest, FeedbackResult
from service.state import CurrentState

router = APIRouter(prefix="/v1", tags=["feedback"])


@router.post("/feedback", operation_id="give_feedback", status_code=201, responses=PROBLEMS)
async def give_feedback(
    label: FeedbackRequest, state: CurrentState, idempotency_key: IdempotencyKey = None
) -> FeedbackResult:
    """Label an inspection. Labels are appended; the newest of an inspection counts."""
    row = await to_thread.run_sync(state.labels.add, label, idempotency_key)
    state.metrics.feedback.labels(row.verdict).inc()
    return FeedbackResult(id=row.id, inspection_id=row.inspection_id, creation_time=row.created_at)
