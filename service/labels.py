"""The use case: an operator's word in, a durable label out."""

import base64
import binascii
import hashlib

from sqlalchemy import Engine as Database
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models.image import Mask, encode_png, read_mask
from service.errors import BadRequest, NotFound, Superseded
from service.schemas import FeedbackRequest
from service.settings import Settings
from service.store import drafts, records, review_queue
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

        Raises NotFound, BadRequest, Superseded, or ImageError for a mask that cannot be read.
        """
        digest = _digest(label)
        with Session(self._database, expire_on_commit=False) as session:
            if key and (earlier := _replay(session, key, digest)):
                return earlier
            inspection = _inspection(session, label.inspection_id)
            _check_boxes(label, inspection)
            mask_sha256 = self._keep_mask(label.mask, inspection) if label.mask else None
            records.hold(session, inspection)
            _check_newest(session, label)
            row = Feedback(
                id=records.new_id(),
                created_at=records.now(),
                inspection_id=inspection.id,
                verdict=label.verdict,
                withdraws=label.supersedes if label.verdict == "withdrawn" else None,
                defect_class=label.defect_class,
                mask_sha256=mask_sha256,
                boxes=[box.model_dump() for box in label.boxes],
                operator=label.operator,
                desk=label.desk,
                comment=label.comment,
                idempotency_key=key,
                request_sha256=digest,
            )
            session.add(row)
            try:
                session.flush()
                review_queue.settle(session, inspection, row)
                drafts.remove(session, inspection.id, label.operator)
                session.commit()
            except IntegrityError:
                # Another request has stored the same key in the meantime: its label counts.
                session.rollback()
                stored = _replay(session, key, digest) if key else None
                if stored is None:
                    raise
                return stored
            return row

    def keep_draft(self, inspection_id: str, operator: str, png: bytes) -> None:
        """Keep a mask that is being drawn; it may mark nothing yet.

        Raises NotFound, BadRequest, or ImageError for a mask that cannot be read.
        """
        with Session(self._database) as session:
            inspection = _inspection(session, inspection_id)
            mask = self._read_mask(png, inspection)
            drafts.keep(session, inspection.id, operator, _encode(mask))
            session.commit()

    def _keep_mask(self, encoded: str, inspection: Inspection) -> str:
        try:
            data = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise BadRequest("The mask is not base64.", remedy="Send a PNG as base64.") from error
        mask = self._read_mask(data, inspection)
        if not mask.any():
            raise BadRequest("The mask marks nothing.", remedy="Leave it out, or mark the defect.")
        return self._blobs.put(_encode(mask))

    def _read_mask(self, png: bytes, inspection: Inspection) -> Mask:
        mask = read_mask(png, max_pixels=self._settings.max_pixels)
        if mask.shape != (inspection.height, inspection.width):
            raise BadRequest(
                f"The mask is {mask.shape[1]}×{mask.shape[0]}, the image "
                f"{inspection.width}×{inspection.height}.",
                remedy="Draw the mask at the size of the inspected image.",
            )
        return mask


def _encode(mask: Mask) -> bytes:
    return encode_png(mask.astype("uint8") * 255)


def _inspection(session: Session, id: str) -> Inspection:
    row = records.inspection(session, id) if records.is_id(id) else None
    if row is None:
        raise NotFound(
            f"There is no inspection {id!r}.", remedy="Use the id of an inspection's result."
        )
    return row


def _digest(label: FeedbackRequest) -> str:
    """Equal for requests that say the same; what they leave out does not count."""
    newer = {"desk", "supersedes"} - label.model_fields_set
    return hashlib.sha256(label.model_dump_json(exclude=newer).encode()).hexdigest()


def _check_newest(session: Session, label: FeedbackRequest) -> None:
    if "supersedes" not in label.model_fields_set:
        return
    standing = records.labels_of(session, label.inspection_id)
    newest = standing[0] if standing else None
    if (newest.id if newest else None) != label.supersedes:
        word = f"{newest.verdict} by {newest.operator}" if newest else "taken back"
        raise Superseded(
            f"The label of this inspection has changed meanwhile: {word}.",
            remedy="Look at it again, and label it if you still see it otherwise.",
        )


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
