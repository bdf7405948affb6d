"""`GET /v1/export`: inspections and labels in the formats of others."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from service.exports import MEDIA, ExportFormat, export, file_name
from service.routes.access import needs
from service.routes.problems import PROBLEMS, files
from service.routes.results import Pieces
from service.state import CurrentState
from service.store.wanted import Wanted

router = APIRouter(prefix="/v1", tags=["inspection"], dependencies=[needs("engineer")])


class ExportQuery(Wanted):
    """What is wanted, and as what."""

    format: ExportFormat = "csv"


@router.get(
    "/export",
    operation_id="export_inspections",
    response_class=Response,
    responses=PROBLEMS | files("text/csv", "application/zip"),
)
async def export_inspections(state: CurrentState, asked: Annotated[ExportQuery, Query()]) -> Pieces:
    """A file of all that is wanted: csv, or an archive of labelled images (mvtec, coco, masks)."""
    name = file_name(asked.recipe, asked.format)
    return Pieces(
        export(state.database, state.blobs, asked, asked.format),
        media_type=MEDIA[asked.format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
