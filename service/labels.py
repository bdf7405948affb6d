"""The use case: an operator's word in, a durable label out."""

import base64
import binascii
import hashlib

from sqlalchemy import Engine as Database
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models.image import encode_png, read_mask
from service.errors import BadRequest, NotFound
from service.schemas import FeedbackRequest
from service.settings import Settings
from service.store import records
from service.store.blobs import Blobs
from service.store.tables import Feedback, Inspection


class Labels:
    """Appends labels; none is ever overwritten."""

    def __init__(self, database: Database, blobs: Blobs, settings: Settings) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings

    def add(self, label: FeedbackRequest, key: str | None) -> Feedback:
        """Store a label before it is returned; the same `key` gives the label stored before.

        Raises NotFound, BadRequest, or ImageError for a mask that cannot be read.
        """
        digest = hashlib.sha256(label.model_dump_json().encode()).hexdigest()
        with Session(self._database, expire_on_commit=False) as session:
            if key and (earlier := _replay(session, key, digest)):
                return earlier
            inspection = _inspection(session, label.inspection_id)
            _check_boxes(label, inspection)
            row = Feedback(
                id=records.new_id(),
                created_at=records.now(),
                inspection_id=inspection.id,
                verdict=label.verdict,
                defect_class=label.defect_class,
                mask_sha256=self._keep_mask(label.mask, inspection) if label.mask else None,
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
                # Another request has stored the same key in the meantime: its label counts.
                session.rollback()
                stored = _replay(session, key, digest) if key else None
                if stored is None:
                    raise
                return stored
            return row

    def _keep_mask(self, encoded: str, inspection: Inspection) -> str:
        try:
            data = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise BadRequest("The mask is not base64.", remedy="Send a PNG as base64.") from error
        mask = read_mask(data, max_pixels=self._settings.max_pixels)
        if mask.shape != (inspection.height, inspection.width):
            raise BadRequest(
                f"The mask is {mask.shape[1]}×{mask.shape[0]}, the image "
                f"{inspection.width}×{inspection.height}.",
                remedy="Draw the mask at the size of the inspected image.",
            )
        if not mask.any():
            raise BadRequest("The mask marks nothing.", remedy="Leave it out, or mark the defect.")
        return self._blobs.put(encode_png(mask.astype("uint8") * 255))


def _inspection(session: Session, id: str) -> Inspection:
    row = records.inspection(session, id) if records.is_id(id) else None
    if row is None:
        raise NotFound(
            f"There is no inspection {id!r}.", remedy="Use the id of an inspection's result."
        )
    return row


def _replay(session: Session, key: str, digest: str) -> Feedback | None:
    earlier = records.feedback_by_key(session, key)
    if earlier and earlier.request_sha256 != digest:
        raise BadRequest(
            "The Idempotency-Key was used for another label.", remedy="Use a new key for each."
        )
    return earlier


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
