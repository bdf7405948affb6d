"""Labels out of the database into a snapshot, the only way that they reach training."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models.errors import SnapshotError
from models.image import encode_png
from models.sample import LabelledImage, Sample, Snapshot, write_snapshot
from service.store import records
from service.store.blobs import Blobs
from service.store.tables import Feedback, Inspection

log = structlog.get_logger()


def take_snapshot(engine: Engine, blobs: Blobs, out: Path, recipe: str | None) -> Snapshot:
    """Write every ok and ng label as a snapshot under `out`. Raises SnapshotError.

    Of several labels the newest counts; `unsure` takes an inspection out. An image that was
    inspected twice counts once, with its newest label. Boxes without a mask become one.
    """
    with Session(engine) as session:
        return write_snapshot(out, _labelled_images(session, blobs, recipe))


def _labelled_images(session: Session, blobs: Blobs, recipe: str | None) -> Iterator[LabelledImage]:
    by_image: dict[str, tuple[Inspection, Feedback]] = {}
    for inspection, feedback in records.labelled(session, recipe):
        by_image.pop(inspection.image_sha256, None)
        by_image[inspection.image_sha256] = (inspection, feedback)
    for inspection, feedback in by_image.values():
        if feedback.verdict == "unsure":
            continue
        image = _kept(blobs, inspection.image_sha256, f"The image of inspection {inspection.id}")
        mask = _mask(blobs, inspection, feedback)
        sample = Sample(
            image_sha256=inspection.image_sha256,
            recipe=inspection.recipe,
            verdict="ok" if feedback.verdict == "ok" else "ng",
            defect_class=feedback.defect_class,
            mask_sha256=hashlib.sha256(mask).hexdigest() if mask else None,
            inspection_id=inspection.id,
            operator=feedback.operator,
            labelled_at=feedback.created_at,
        )
        yield LabelledImage(sample, image, mask)


def _mask(blobs: Blobs, inspection: Inspection, feedback: Feedback) -> bytes | None:
    if feedback.mask_sha256:
        return _kept(blobs, feedback.mask_sha256, f"The mask of feedback {feedback.id}")
    if not feedback.boxes:
        return None
    mask = np.zeros((inspection.height, inspection.width), np.uint8)
    for box in feedback.boxes:
        mask[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]] = 255
    return encode_png(mask)


def _kept(blobs: Blobs, sha256: str, what: str) -> bytes:
    data = blobs.get(sha256)
    if data is None:
        raise SnapshotError(
            f"{what} is labelled but no longer kept.",
            remedy="Restore the data directory from its backup.",
        )
    return data
