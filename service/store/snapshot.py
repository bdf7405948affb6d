"""Labels out of the database into a snapshot, the only way that they reach training."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models.sample import LabelledImage, Sample, Snapshot, write_snapshot
from service.store import records
from service.store.blobs import Blobs
from service.store.masks import mask_of
from service.store.tables import Feedback, Inspection
from service.store.wanted import Wanted

log = structlog.get_logger()


@dataclass(frozen=True)
class TakenSnapshot:
    """A snapshot, and how many labels are not in it because their files are no longer kept."""

    snapshot: Snapshot
    left_out: int

    @property
    def note(self) -> str:
        """What was left out, in words; empty where nothing was."""
        if not self.left_out:
            return ""
        return (
            f"Labels left out because their image or mask is no longer kept: {self.left_out}. "
            "Restore the data directory from its backup to learn them, too."
        )


def take_snapshot(
    engine: Engine, blobs: Blobs, out: Path, wanted: Wanted, *, without: Collection[str] = ()
) -> TakenSnapshot:
    """Write every ok and ng label of the wanted inspections under `out`, but for those `without`.

    Raises SnapshotError.

    Of several labels the newest counts; `unsure` takes an inspection out. An image that was
    inspected twice counts once, with its newest label. Boxes without a mask become one. What is no
    longer kept is left out and counted.
    """
    with Session(engine) as session:
        labels = (pair for pair in settled(session, wanted) if pair[0].id not in without)
        images = _LabelledImages(blobs, labels)
        snapshot = write_snapshot(out, images)
    return TakenSnapshot(snapshot, images.left_out)


def settled(session: Session, wanted: Wanted) -> Iterator[tuple[Inspection, Feedback]]:
    """The wanted inspections that count as ok or ng, each image once, with the label that does."""
    by_image: dict[str, tuple[Inspection, Feedback]] = {}
    for inspection, feedback in records.labelled(session, wanted):
        by_image.pop(inspection.image_sha256, None)
        by_image[inspection.image_sha256] = (inspection, feedback)
    return (pair for pair in by_image.values() if pair[1].verdict != "unsure")


class _LabelledImages:
    """Labels with their files, for one pass; `left_out` counts those whose files are gone."""

    def __init__(self, blobs: Blobs, labels: Iterable[tuple[Inspection, Feedback]]) -> None:
        self._blobs = blobs
        self._labels = labels
        self.left_out = 0

    def __iter__(self) -> Iterator[LabelledImage]:
        for inspection, feedback in self._labels:
            image = self._blobs.get(inspection.image_sha256)
            mask = mask_of(self._blobs, inspection, feedback)
            if image is None or (feedback.mask_sha256 and mask is None):
                log.warning("a labelled file is no longer kept", inspection=inspection.id)
                self.left_out += 1
                continue
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
