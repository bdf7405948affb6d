"""`POST /v1/inspect` and its batch form."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile

from models.raw import PixelFormat, image_file
from service.decision import worst
from service.errors import BadRequest, TooLarge, UnsupportedMedia, problem
from service.inspection_request import InspectionRequest
from service.routes.access import needs
from service.routes.problems import PROBLEMS, IdempotencyKey
from service.routes.results import render, result_of
from service.schemas import BatchItem, BatchResult, HeatmapFormat, InspectionResult, Problem
from service.state import CurrentState, State
from service.store.tables import Inspection
from service.wire import Name

router = APIRouter(prefix="/v1", tags=["inspection"], dependencies=[needs("camera")])

IMAGE_TYPES = ("image/jpeg", "image/png", "image/bmp", "image/tiff", "image/webp")
RAW = "application/octet-stream"

MOST_PIXELS = 1_000_000  # a side

_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
INSPECT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **dict.fromkeys((*IMAGE_TYPES, RAW), _BINARY),
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


class InspectQuery(BaseModel):
    """What a sender says of an image."""

    recipe: Name | None = None
    number: Annotated[int, Query(ge=0, le=65535)] | None = None
    part_id: Name | None = None
    lot: Name | None = None
    camera: Name | None = None
    simulated: bool = False
    deadline_ms: Annotated[int, Query(ge=1)] | None = None
    heatmap: HeatmapFormat | None = None
    # Of a raw camera buffer.
    width: Annotated[int, Query(ge=0, le=MOST_PIXELS)] | None = None
    height: Annotated[int, Query(ge=0, le=MOST_PIXELS)] | None = None
    pixel_format: PixelFormat | None = None


@router.post("/inspect", operation_id="inspect", openapi_extra=INSPECT_BODY, responses=PROBLEMS)
async def inspect(
    request: Request,
    response: Response,
    state: CurrentState,
    query: Annotated[InspectQuery, Query()],
    idempotency_key: IdempotencyKey = None,
) -> InspectionResult:
    """Inspect one image: the file as the body, or a multipart form with a file `image`.

    A camera's buffer is `application/octet-stream` with its `width`, `height` and `pixel_format`.
    """
    image, media = await _read(*await _single(request), query, state)
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
        # In some charsets there are halves of letters, which no answer can hold.
        name = (file.filename or f"image {number + 1}").encode(errors="replace").decode()
        key = f"{idempotency_key}/{number}" if idempotency_key else None
        try:
            given = await file.read(), file.content_type
            image, media = await _read(*given, query, state)
            asked = _asked(query, image, media, key, batch)
            row = await state.inspector.inspect_in_bulk(asked)
        except Exception as error:  # noqa: BLE001 - one image's error is its own item's
            shown = Problem.model_validate(problem(error, request))
            return BatchItem(name=name, problem=shown)
        return BatchItem(name=name, result=await _result(state, row, query.heatmap))

    async with _several(request, state.settings.max_batch_images) as files:
        batch = await _digest(files)
        items = await asyncio.gather(*(one(i, file, batch) for i, file in enumerate(files)))
    verdicts = {item.result.verdict if item.result else "error" for item in items}
    return BatchResult(verdict=worst(verdicts), items=items)


async def _result(state: State, row: Inspection, inline: HeatmapFormat | None) -> InspectionResult:
    result = result_of(row)
    if inline is None or not row.stored:
        return result
    data = await to_thread.run_sync(render, state, row, inline)
    return result.model_copy(update={"heatmap_data": base64.b64encode(data).decode()})


def _asked(
    query: InspectQuery, image: bytes, media: str, key: str | None, batch: str | None = None
) -> InspectionRequest:
    return InspectionRequest(
        image=image,
        image_type=media,
        recipe=query.recipe,
        number=query.number,
        part_id=query.part_id,
        lot=query.lot,
        camera=query.camera,
        simulated=query.simulated,
        idempotency_key=key,
        deadline_ms=query.deadline_ms,
        batch=batch,
    )


async def _read(
    data: bytes, content_type: str | None, query: InspectQuery, state: State
) -> tuple[bytes, str]:
    """An image file and its type, of what was sent."""
    media = _image_type(content_type)
    raw = (query.width, query.height, query.pixel_format)
    if media != RAW:
        if raw != (None, None, None):
            raise BadRequest(
                f"width, height and pixel_format are those of a raw buffer, not of {media}.",
                remedy=f"Leave them out, or send the buffer as {RAW}.",
            )
        return data, media
    if query.width is None or query.height is None or query.pixel_format is None:
        raise BadRequest(
            "A raw buffer does not say what it holds.",
            remedy="Add ?width=…&height=…&pixel_format=…, as the camera is set.",
        )
    make = partial(
        image_file, data, query.pixel_format, width=query.width, height=query.height,
        max_pixels=state.settings.max_pixels,
    )  # fmt: skip
    return await to_thread.run_sync(make)


async def _single(request: Request) -> tuple[bytes, str | None]:
    if not _is_form(request):
        content_type = request.headers.get("content-type")
        _image_type(content_type)  # before the body is taken in
        return await request.body(), content_type
    async with _form(request, 1) as form:
        file = form.get("image")
        if not isinstance(file, UploadFile):
            raise BadRequest("The form has no file 'image'.", remedy="curl -F image=@part.jpg …")
        return await file.read(), file.content_type


@asynccontextmanager
async def _several(request: Request, most: int) -> AsyncIterator[list[UploadFile]]:
    if not _is_form(request):
        raise UnsupportedMedia(
            "A batch is a multipart form.", remedy="curl -F images=@1.jpg -F images=@2.jpg …"
        )
    async with _form(request, most + 1) as form:
        files = [file for file in form.getlist("images") if isinstance(file, UploadFile)]
        if not files:
            raise BadRequest("The form has no files 'images'.", remedy="curl -F images=@1.jpg …")
        if len(files) > most:
            raise TooLarge(f"A batch holds at most {most} images.", remedy="Send several batches.")
        yield files


@asynccontextmanager
async def _form(request: Request, most: int) -> AsyncIterator[FormData]:
    try:
        form = await request.form(max_files=most, max_fields=10)
    except ValueError as error:  # Python has charsets that are none for names
        raise BadRequest(
            "The form's names cannot be read.", remedy="Leave its charset out, and send UTF-8."
        ) from error
    try:
        yield form
    finally:
        await form.close()


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
    if media not in (*IMAGE_TYPES, RAW):
        raise UnsupportedMedia(
            f"The content type {media!r} is not one that is accepted.",
            remedy=f"Send one of {', '.join((*IMAGE_TYPES, RAW))}.",
        )
    return media
