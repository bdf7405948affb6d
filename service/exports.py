"""Labelled inspections in the formats of others, streamed whatever their number."""

import csv
import io
import json
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Literal

from sqlalchemy import Engine as Database
from sqlalchemy.orm import Session
from zipstream import ZipStream

from models.image import read_mask
from service.areas import areas
from service.spreadsheets import harmless
from service.store import records
from service.store.blobs import Blobs
from service.store.masks import mask_of
from service.store.tables import Feedback, Inspection
from service.store.wanted import Wanted

ExportFormat = Literal["csv", "mvtec", "coco", "masks"]
MEDIA: dict[ExportFormat, str] = {
    "csv": "text/csv; charset=utf-8",
    "mvtec": "application/zip",
    "coco": "application/zip",
    "masks": "application/zip",
}

_PAGE = 200
_SUFFIXES = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
    "image/webp": "webp",
}
_COLUMNS = (
    "id", "time", "recipe", "part", "lot", "camera", "simulated", "verdict", "score", "percentile",
    "review_threshold", "ng_threshold", "bundle_version", "device", "label", "defect_class",
    "operator", "labelled_at", "comment",
)  # fmt: skip
_FOLDER_BYTES = 200
# Windows' devices, and what MVTec's layout calls parts without a defect.
_RESERVED = {
    "good", "con", "prn", "aux", "nul",
    *(f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"),
}  # fmt: skip

Labelled = tuple[Inspection, Feedback | None]


def export(
    database: Database, blobs: Blobs, wanted: Wanted, format: ExportFormat
) -> Generator[bytes]:
    """The wanted inspections as a file, piece by piece, the newest first.

    `csv` has a row for each inspection. The others are zip archives of those that are labelled ok
    or ng, with their images: `mvtec` in that benchmark's folders, `coco` with `annotations.json`,
    `masks` with a PNG for each image and `labels.csv`. An image that is no longer kept is left out.
    """
    found = _inspections(database, wanted)
    if format == "csv":
        return _csv(found)
    labelled = ((row, label) for row, label in found if label and label.verdict in ("ok", "ng"))
    archive = {"mvtec": _mvtec, "coco": _coco, "masks": _masks}[format]
    return archive(blobs, labelled)


def file_name(recipe: str | None, format: ExportFormat) -> str:
    """What to call the file: nothing in it means anything to a header or to a file system."""
    of = re.sub(r"[^A-Za-z0-9_-]", "_", recipe or "all")[:63]
    return f"kizu-{of}-{format}.{'csv' if format == 'csv' else 'zip'}"


def _inspections(database: Database, wanted: Wanted) -> Iterator[Labelled]:
    """Page by page, each in a transaction of its own, which holds up nobody."""
    last: Inspection | None = None
    while True:
        with Session(database) as session:
            rows = records.inspections(session, wanted, before=last, limit=_PAGE)
            labels = records.latest_feedback(session, [row.id for row in rows])
            session.expunge_all()
        yield from ((row, labels.get(row.id)) for row in rows)
        if len(rows) < _PAGE:
            return
        last = rows[-1]


def _csv(found: Iterable[Labelled]) -> Generator[bytes]:
    # Spreadsheets take UTF-8 for something else without its mark.
    yield b"\xef\xbb\xbf" + _line(_COLUMNS)
    for row, label in found:
        yield _line(_cells(row, label))


def _cells(row: Inspection, label: Feedback | None) -> tuple[object, ...]:
    return (
        row.id, row.created_at.isoformat(), row.recipe, row.part_id, row.lot, row.camera,
        row.simulated, row.verdict, row.score, row.percentile, row.review_threshold,
        row.ng_threshold, row.bundle_version, row.device,
        *((label.verdict, label.defect_class, label.operator, label.created_at.isoformat(),
           label.comment) if label else ("", "", "", "", "")),
    )  # fmt: skip


def _line(cells: Iterable[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(harmless(one) if isinstance(one, str) else one for one in cells)
    return text.getvalue().encode()


def _mvtec(blobs: Blobs, found: Iterable[tuple[Inspection, Feedback]]) -> Generator[bytes]:
    archive = ZipStream()
    for row, label in found:
        kind = _folder(label.defect_class or "defect")
        folder = "train/good" if label.verdict == "ok" else f"test/{kind}"
        if not _added(archive, blobs, row, f"{row.recipe}/{folder}/{_file(row)}"):
            continue
        if label.verdict == "ng" and (mask := mask_of(blobs, row, label)):
            archive.add(mask, f"{row.recipe}/ground_truth/{kind}/{row.id}_mask.png")
        yield from archive.all_files()
    yield from archive.finalize()


def _masks(blobs: Blobs, found: Iterable[tuple[Inspection, Feedback]]) -> Generator[bytes]:
    archive = ZipStream()
    lines = [_line(("image", "mask", *_COLUMNS))]
    for row, label in found:
        name = f"images/{_file(row)}"
        if not _added(archive, blobs, row, name):
            continue
        mask = mask_of(blobs, row, label)
        if mask:
            archive.add(mask, f"masks/{row.id}.png")
        lines.append(_line((name, f"masks/{row.id}.png" if mask else "", *_cells(row, label))))
        yield from archive.all_files()
    archive.add(b"".join(lines), "labels.csv")
    yield from archive.finalize()


def _coco(blobs: Blobs, found: Iterable[tuple[Inspection, Feedback]]) -> Generator[bytes]:
    archive = ZipStream()
    categories: dict[str, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row, label in found:
        if not _added(archive, blobs, row, f"images/{_file(row)}"):
            continue
        number = len(images) + 1
        images.append(
            {
                "id": number,
                "file_name": f"images/{_file(row)}",
                "width": row.width,
                "height": row.height,
                "date_captured": row.created_at.isoformat(),
            }
        )
        mask = mask_of(blobs, row, label)
        if label.verdict == "ng":
            kind = label.defect_class or "defect"
            category = categories.setdefault(kind, len(categories) + 1)
            for shape in _shapes(mask):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": category,
                        "iscrowd": 0,
                        **shape,
                    }
                )
        yield from archive.all_files()
    document = {
        "info": {"description": "Labelled inspections, exported by Kizu"},
        "images": images,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": annotations,
    }
    archive.add(json.dumps(document).encode(), "annotations.json")
    yield from archive.finalize()


def _added(archive: ZipStream, blobs: Blobs, row: Inspection, name: str) -> bool:
    """Whether the image is kept, and so goes into the archive: piece by piece, since whoever takes
    it slowly would hold all of it in memory."""
    file = blobs.open(row.image_sha256)
    if file is None:
        return False
    archive.add(file.pieces(), name, size=file.size)
    return True


def _shapes(mask: bytes | None) -> Iterator[dict[str, Any]]:
    """Each connected area as COCO's polygon, box and area, in pixels; holes are not COCO's."""
    if mask is None:
        return
    for area in areas(read_mask(mask)):
        rows, columns = area.rows, area.columns
        yield {
            "bbox": [
                columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
            ],
            "area": int(area.inside.sum()),
            "segmentation": [area.outline().ravel().tolist()],
        }  # fmt: skip


def _file(row: Inspection) -> str:
    return f"{row.id}.{_SUFFIXES.get(row.image_type, 'png')}"


def _folder(name: str) -> str:
    """A defect class as a folder that no system refuses, that leads nowhere else, and that is not
    the one of good parts."""
    safe = "".join(letter if letter.isalnum() or letter in "-_ " else "_" for letter in name)
    # File systems count bytes, and a letter takes four at most.
    short = safe.encode()[:_FOLDER_BYTES].decode(errors="ignore").strip() or "defect"
    return f"{short}_" if short.casefold() in _RESERVED else short
