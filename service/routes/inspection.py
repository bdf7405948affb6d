"""`POST /v1/inspect`, its batch form, and what it left behind."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.datastructures import UploadFile

from models.bundle import Thresholds, Verdict
from models.image import PixelContract, decode
from service import heatmap
from service.errors import (
    BadRequest,
    NotFound,
    TooLarge,
    UnsupportedMedia,
    problem,
)
from service.heatmap import KeptHeatmap
from service.inspector import InspectionRequest
from service.routes.results import result_of
from service.schemas import (
    BatchItem,
    BatchResult,
    HeatmapFormat,
    InspectionPage,
    InspectionResult,
    Name,
    Problem,
)
from service.state import CurrentState, State
from service.store import records
from service.store.tables import Inspection

T = TypeVar("T")

router = APIRouter(prefix="/v1", tags=["inspection"])

IMAGE_TYPES = ("image/jpeg", "image/png", "image/bmp", "image/tiff", "image/webp")
WORST: tuple[Verdict, ...] = ("error", "ng", "review", "ok")
HEATMAP_TYPES: dict[HeatmapFormat, str] = {
    "png8": "image/png",
    "png16": "image/png",
    "npy": "application/x-npy",
    "overlay": "image/jpeg",
}
# An image or a heatmap of an inspection never changes.
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}

_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
INSPECT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **dict.fromkeys(IMAGE_TYPES, _BINARY),
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": _BINARY["schema"]},
                }
            },
        },
    }
}
BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {"images": {"type": "array", "items": _BINARY["schema"]}},
                }
            }
        },
    }
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "model": Problem,
        "description": "Problem",
        "content": {"application/problem+json": {}},
    }
    for status in (404, 409, 413, 415, 422, 500, 503, 504)
}


class InspectQuery(BaseModel):
    """What a sender says of an image."""

    recipe: Name | None = None
    part_id: Name | None = None
    camera: Name | None = None
    simulated: bool = False
    deadline_ms: Annotated[int, Query(ge=1)] | None = None
    heatmap: HeatmapFormat | None = None


IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]


@router.post("/inspect", operation_id="inspect", openapi_extra=INSPECT_BODY, responses=PROBLEMS)
async def inspect(
    request: Request,
    response: Response,
    state: CurrentState,
    query: Annotated[InspectQuery, Query()],
    idempotency_key: IdempotencyKey = None,
) -> InspectionResult:
    """Inspect one image: the raw file as the body, or a multipart form with a file `image`."""
    image, media = await _single(request)
    row = await state.inspector.inspect(_asked(query, image, media, idempotency_key))
    response.headers["Server-Timing"] = ", ".join(
        f"{step};dur={milliseconds}" for step, milliseconds in row.processing_times.items()
    )
    return await _result(state, row, query.heatmap)


@router.post(
    "/inspect/batch", operation_id="inspect_batch", openapi_extra=BATCH_BODY, responses=PROBLEMS
)
async def inspect_batch(
    request: Request,
    state: CurrentState,
    query: Annotated[InspectQuery, Query()],
    idempotency_key: IdempotencyKey = None,
) -> BatchResult:
    """Inspect several images, each with a result of its own; the whole has the worst verdict.

    With a `part_id` they are views of that part. A multipart form with files `images`.
    """

    async def one(number: int, file: UploadFile, batch: str) -> BatchItem:
        name = file.filename or f"image {number + 1}"
        key = f"{idempotency_key}/{number}" if idempotency_key else None
        try:
            media = _image_type(file.content_type)
            asked = _asked(query, await file.read(), media, key, batch)
            row = await state.inspector.inspect_in_bulk(asked)
        except Exception as error:  # noqa: BLE001 - one image's error is its own item's
            shown = Problem.model_validate(problem(error, request))
            return BatchItem(name=name, problem=shown)
        return BatchItem(name=name, result=await _result(state, row, query.heatmap))

    async with _several(request, state.settings.max_batch_images) as files:
        batch = await _digest(files)
        items = await asyncio.gather(*(one(i, file, batch) for i, file in enumerate(files)))
    verdicts = {item.result.verdict if item.result else "error" for item in items}
    return BatchResult(verdict=next(v for v in WORST if v in verdicts), items=items)


@router.get("/inspections", operation_id="list_inspections")
async def list_inspections(
    state: CurrentState,
    recipe: Name | None = None,
    verdict: Verdict | None = None,
    part_id: Name | None = None,
    before: str | None = None,
    limit: Annotated[int, Query(ge=1, le=records.PAGE)] = 50,
) -> InspectionPage:
    """Inspections, the newest first; `before` is the `next` of the page before."""

    def read(session: Session) -> InspectionPage:
        last = _found(session, before) if before else None
        rows = records.inspections(
            session, recipe=recipe, verdict=verdict, part_id=part_id, before=last, limit=limit
        )
        feedback = records.latest_feedback(session, [row.id for row in rows])
        return InspectionPage(
            items=[result_of(row, feedback.get(row.id)) for row in rows],
            next=rows[-1].id if len(rows) == limit else None,
        )

    return await _reading(state, read)


@router.get("/inspections/{id}", operation_id="get_inspection", responses=PROBLEMS)
async def get_inspection(state: CurrentState, id: str) -> InspectionResult:
    """One inspection with its newest label."""

    def read(session: Session) -> InspectionResult:
        row = _found(session, id)
        return result_of(row, records.latest_feedback(session, [id]).get(id))

    return await _reading(state, read)


@router.get("/inspections/{id}/image", operation_id="get_image", responses=PROBLEMS)
async def get_image(state: CurrentState, id: str) -> Response:
    """The image as it came."""

    def read(session: Session) -> Response:
        row = _found(session, id)
        data = _kept(state, row.image_sha256)
        return Response(data, media_type=row.image_type, headers=FOREVER)

    return await _reading(state, read)


@router.get("/inspections/{id}/heatmap", operation_id="get_heatmap", responses=PROBLEMS)
async def get_heatmap(state: CurrentState, id: str, format: HeatmapFormat = "png8") -> Response:
    """The heatmap: png8 or png16 (linear over `heatmap_range`), npy (raw), or an overlay JPEG."""

    def read(session: Session) -> Response:
        row = _found(session, id)
        return Response(
            _render(state, row, format), media_type=HEATMAP_TYPES[format], headers=FOREVER
        )

    return await _reading(state, read)


async def _reading(state: State, read: Callable[[Session], T]) -> T:
    def call() -> T:
        with Session(state.database) as session:
            return read(session)

    return await to_thread.run_sync(call)


def _found(session: Session, id: str) -> Inspection:
    row = records.inspection(session, id) if records.is_id(id) else None
    if row is None:
        raise NotFound(f"There is no inspection {id!r}.", remedy="Use the id of a result.")
    return row


def _kept(state: State, sha256: str) -> bytes:
    data = state.blobs.get(sha256)
    if data is None:
        raise NotFound("The file of this inspection is no longer kept.")
    return data


def _render(state: State, row: Inspection, format: HeatmapFormat) -> bytes:
    kept = KeptHeatmap(_kept(state, row.heatmap_sha256), row.heatmap_low, row.heatmap_high)
    if format == "png16":
        return kept.png
    if format == "png8":
        return heatmap.png8(kept)
    if format == "npy":
        return heatmap.npy(kept)
    thresholds = Thresholds(review=row.review_threshold, ng=row.ng_threshold)
    contract = PixelContract.model_validate(row.pixels)
    image = decode(_kept(state, row.image_sha256), contract, max_pixels=state.settings.max_pixels)
    return heatmap.overlay(image, kept, thresholds)


async def _result(state: State, row: Inspection, inline: HeatmapFormat | None) -> InspectionResult:
    result = result_of(row)
    if inline is None:
        return result
    data = await to_thread.run_sync(_render, state, row, inline)
    return result.model_copy(update={"heatmap_data": base64.b64encode(data).decode()})


def _asked(
    query: InspectQuery, image: bytes, media: str, key: str | None, batch: str | None = None
) -> InspectionRequest:
    return InspectionRequest(
        image=image,
        image_type=media,
        recipe=query.recipe,
        part_id=query.part_id,
        camera=query.camera,
        simulated=query.simulated,
        idempotency_key=key,
        deadline_ms=query.deadline_ms,
        batch=batch,
    )


async def _single(request: Request) -> tuple[bytes, str]:
    if not _is_form(request):
        media = _image_type(request.headers.get("content-type"))
        return await request.body(), media
    async with request.form(max_files=1, max_fields=10) as form:
        file = form.get("image")
        if not isinstance(file, UploadFile):
            raise BadRequest("The form has no file 'image'.", remedy="curl -F image=@part.jpg …")
        return await file.read(), _image_type(file.content_type)


@asynccontextmanager
async def _several(request: Request, most: int) -> AsyncIterator[list[UploadFile]]:
    if not _is_form(request):
        raise UnsupportedMedia(
            "A batch is a multipart form.", remedy="curl -F images=@1.jpg -F images=@2.jpg …"
        )
    async with request.form(max_files=most + 1, max_fields=10) as form:
        files = [file for file in form.getlist("images") if isinstance(file, UploadFile)]
        if not files:
            raise BadRequest("The form has no files 'images'.", remedy="curl -F images=@1.jpg …")
        if len(files) > most:
            raise TooLarge(f"A batch holds at most {most} images.", remedy="Send several batches.")
        yield files


async def _digest(files: list[UploadFile]) -> str:
    """Names a batch by all its images, so that a key cannot be replayed with some of them."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(await file.read()).digest())
        await file.seek(0)
    return digest.hexdigest()


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def _image_type(content_type: str | None) -> str:
    media = (content_type or "").split(";")[0].strip().lower()
    if media not in IMAGE_TYPES:
        raise UnsupportedMedia(
            f"The content type {media!r} is not one that is accepted.",
            remedy=f"Send one of {', '.join(IMAGE_TYPES)}.",
        )
    return media
