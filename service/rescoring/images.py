"""Which images are looked at again, and what was said of them."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import fsspec
from pydantic import BaseModel
from sqlalchemy import Engine as Database
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.settings import SettingsError
from service.store.blobs import Blobs
from service.store.tables import Inspection
from service.store.wanted import Wanted

_TYPES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class OldImage(BaseModel):
    """Where an image lies, as an address of fsspec's, and what was said of it, if anything."""

    address: str
    id: str = ""
    created_at: datetime | None = None
    part_id: str | None = None
    lot: str | None = None
    camera: str | None = None
    verdict: str | None = None
    score: float | None = None


def of_archive(database: Database, blobs: Blobs, wanted: Wanted) -> Iterator[OldImage]:
    """Those of inspections whose images are still kept, the oldest first."""
    query = (
        select(Inspection)
        .where(*wanted.conditions(), Inspection.files_removed_at.is_(None))
        .order_by(Inspection.created_at, Inspection.id)
        .execution_options(yield_per=1000)
    )
    with Session(database) as session:
        for row in session.scalars(query):
            yield OldImage(
                address=blobs.address(row.image_sha256), id=row.id,
                created_at=row.created_at, part_id=row.part_id, lot=row.lot, camera=row.camera,
                verdict=row.verdict, score=row.score,
            )  # fmt: skip
            session.expunge(row)


def of_folder(address: str) -> Iterator[OldImage]:
    """All images below a folder, or below a place of an object store, `s3://…`, in the order of
    their names. Raises SettingsError."""
    try:
        system, root = fsspec.core.url_to_fs(address)
        found: list[str] = sorted(system.find(root))
    except (ImportError, OSError, ValueError) as error:
        raise SettingsError(
            f"{address} cannot be looked into: {error}.",
            remedy="Name a folder; an object store's addresses need its package, such as s3fs.",
        ) from error
    for path in found:
        if path.lower().endswith(_TYPES):
            yield OldImage(address=_address(system, path))


def _address(system: Any, path: str) -> str:
    return str(system.unstrip_protocol(path))
