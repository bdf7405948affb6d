"""Labels out of the database into a snapshot, the only way that they reach training."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models.errors import SnapshotError
from models.sample import LabelledImage, Sample, Snapshot, write_snapshot
from service.store import records
from service.store.blobs import Blobs
from service.store.masks import mask_of
from service.store.tables import Feedback, Inspection
from service.store.wanted import Wanted

log = structlog.get_logger()


def take_snapshot(
    engine: Engine, blobs: Blobs, out: Path, wanted: Wanted, *, without: Collection[str] = ()
) -> Snapshot:
    """Write every ok and ng label of the wanted inspections under `out`, but for those `without`.

    Raises SnapshotError.

    Of several labels the newest counts; `unsure` takes an inspection out. An image that was
    inspected twice counts once, with its newest label. Boxes without a mask become one.
    """
    with Session(engine) as session:
        labels = (pair for pair in settled(session, wanted) if pair[0].id not in without)
        return write_snapshot(out, _labelled_images(blobs, labels))


def settled(session: Session, wanted: Wanted) -> Iterator[tuple[Inspection, Feedback]]:
    """The wanted inspections that count as ok or ng, each image once, with the label that does."""
    by_image: dict[str, tuple[Inspection, Feedback]] = {}
    for inspection, feedback in records.labelled(session, wanted):
        by_image.pop(inspection.image_sha256, None)
        by_image[inspection.image_sha256] = (inspection, feedback)
    return (pair for pair in by_image.values() if pair[1].verdict != "unsure")


def _labelled_images(
    blobs: Blobs, labels: Iterable[tuple[Inspection, Feedback]]
) -> Iterator[LabelledImage]:
    for inspection, feedback in labels:
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
    return mask_of(blobs, inspection, feedback)


def _kept(blobs: Blobs, sha256: str, what: str) -> bytes:
    data = blobs.get(sha256)
    if data is None:
        raise SnapshotError(
            f"{what} is labelled but no longer kept.",
            remedy="Restore the data directory from its backup.",
        )
    return data
