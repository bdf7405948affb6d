"""`POST /v1/feedback`: an operator's label, on disk before the answer."""

import base64
import binascii
import hashlib
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models.image import read_mask
from service.errors import BadRequest, NotFound
from service.routes.inspection import PROBLEMS
from service.schemas import FeedbackRequest, FeedbackResult
from service.state import CurrentState, State
from service.store import records
from service.store.tables import Feedback, Inspection

router = APIRouter(prefix="/v1", tags=["feedback"])


@router.post("/feedback", operation_id="give_feedback", status_code=201, responses=PROBLEMS)
async def give_feedback(
    label: FeedbackRequest,
    state: CurrentState,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> FeedbackResult:
    """Label an inspection. Labels are appended; the newest of an inspection counts."""
    row = await to_thread.run_sync(_store, state, label, idempotency_key)
    state.metrics.feedback.labels(row.verdict).inc()
    return FeedbackResult(id=row.id, inspection_id=row.inspection_id, creation_time=row.created_at)


def _store(state: State, label: FeedbackRequest, key: str | None) -> Feedback:
    digest = hashlib.sha256(label.model_dump_json().encode()).hexdigest()
    with Session(state.database, expire_on_commit=False) as session:
        if key and (earlier := _replay(session, key, digest)):
            return earlier
        inspection = records.inspection(session, label.inspection_id)
        if inspection is None:
            raise NotFound(
                f"There is no inspection {label.inspection_id!r}.",
                remedy="Use the id of an inspection's result.",
            )
        _check_boxes(label, inspection)
        row = Feedback(
            id=records.new_id(),
            created_at=records.now(),
            inspection_id=inspection.id,
            verdict=label.verdict,
            defect_class=label.defect_class,
            mask_sha256=_keep_mask(state, label.mask, inspection) if label.mask else None,
            boxes=[box.model_dump() for box in label.boxes],
            operator=label.operator,
            comment=label.comment,
            idempotency_key=key,
            request_sha256=digest,
        )
        session.add(row)
        try:
            session.commit()
        except IntegrityError:
            session.rollback()
            earlier = _replay(session, key, digest) if key else None
            if earlier is None:
                raise
            return earlier
        return row


def _replay(session: Session, key: str, digest: str) -> Feedback | None:
    earlier = records.feedback_by_key(session, key)
    if earlier and earlier.request_sha256 != digest:
        raise BadRequest(
            "The Idempotency-Key was used for another label.", remedy="Use a new key for each."
        )
    return earlier


def _keep_mask(state: State, encoded: str, inspection: Inspection) -> str:
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise BadRequest("The mask is not base64.", remedy="Send a PNG file as base64.") from error
    mask = read_mask(data, max_pixels=state.settings.max_pixels)
    if mask.shape != (inspection.height, inspection.width):
        raise BadRequest(
            f"The mask is {mask.shape[1]}×{mask.shape[0]}, the image "
            f"{inspection.width}×{inspection.height}.",
            remedy="Draw the mask at the size of the inspected image.",
        )
    if not mask.any():
        raise BadRequest("The mask marks nothing.", remedy="Leave it out, or mark the defect.")
    return state.blobs.put(data)


def _check_boxes(label: FeedbackRequest, inspection: Inspection) -> None:
    for box in label.boxes:
        if not (
            0 <= box.x < box.x + box.width <= inspection.width
            and 0 <= box.y < box.y + box.height <= inspection.height
        ):
            raise BadRequest(
                f"A box lies outside of the image of {inspection.width}×{inspection.height}.",
                remedy="Give boxes in pixels of the inspected image, at least 1 wide and high.",
            )
