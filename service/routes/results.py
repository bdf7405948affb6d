"""Stored rows as the wire types and pictures that show them."""

from collections.abc import Generator, Mapping
from contextlib import closing
from typing import TypeVar, cast

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from models.bundle import Thresholds, Verdict
from models.image import PixelContract, decode
from service import heatmap
from service.errors import NotFound
from service.heatmap import KeptHeatmap
from service.regions import Region
from service.schemas import FeedbackSummary, HeatmapFormat, InspectionResult
from service.state import State
from service.store.tables import Feedback, Inspection

T = TypeVar("T")

# An image, a heatmap or a mask never changes.
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
HEATMAP_TYPES: dict[HeatmapFormat, str] = {
    "png8": "image/png",
    "png16": "image/png",
    "npy": "application/x-npy",
    "overlay": "image/jpeg",
}


def result_of(row: Inspection, feedback: Feedback | None = None) -> InspectionResult:
    """The result as a caller sees it."""
    address = f"/v1/inspections/{row.id}"
    return InspectionResult(
        id=row.id,
        recipe_id=row.recipe,
        part_id=row.part_id,
        lot=row.lot,
        camera=row.camera,
        is_simulated=row.simulated,
        result_state="completed",
        creation_time=row.created_at,
        verdict=cast(Verdict, row.verdict),
        score=row.score,
        percentile=row.percentile,
        thresholds=Thresholds(review=row.review_threshold, ng=row.ng_threshold),
        regions=[Region.model_validate(region) for region in row.regions],
        degraded=None if row.stored else "not stored",
        image=f"{address}/image" if row.stored else None,
        width=row.width,
        height=row.height,
        heatmap=f"{address}/heatmap" if row.stored else None,
        heatmap_range=(row.heatmap_low, row.heatmap_high),
        heatmap_data=None,
        bundle_version=row.bundle_version,
        bundle_digest=row.bundle_digest,
        device=row.device,
        processing_times=row.processing_times,
        feedback=summary_of(feedback) if feedback else None,
    )


def summary_of(row: Feedback) -> FeedbackSummary:
    """A label as a caller sees it."""
    return FeedbackSummary.model_validate(
        {
            "id": row.id,
            "creation_time": row.created_at,
            "verdict": row.verdict,
            "withdraws": row.withdraws,
            "defect_class": row.defect_class,
            "operator": row.operator,
            "desk": row.desk,
            "comment": row.comment,
            "boxes": row.boxes,
            "has_mask": row.mask_sha256 is not None,
        }
    )


def kept(state: State, sha256: str) -> bytes:
    """A file of the store. Raises NotFound."""
    return _found(state.blobs.get(sha256))


class Pieces(StreamingResponse):
    """An answer in pieces: who takes it slowly holds one of them in memory, not all of it. What
    they come from is closed in any case."""

    def __init__(
        self, pieces: Generator[bytes], *, media_type: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with closing(self._pieces):
            await super().__call__(scope, receive, send)


def kept_file(state: State, sha256: str, media_type: str) -> Pieces:
    """The same as an answer. Raises NotFound."""
    file = _found(state.blobs.open(sha256))
    headers = FOREVER | {"Content-Length": str(file.size)}
    return Pieces(file.pieces(), media_type=media_type, headers=headers)


def _found(kept: T | None) -> T:
    if kept is None:
        raise NotFound("The file of this inspection is no longer kept.")
    return kept


def render(state: State, row: Inspection, format: HeatmapFormat) -> bytes:
    """The heatmap of an inspection in one of its formats."""
    stored = KeptHeatmap(kept(state, row.heatmap_sha256), row.heatmap_low, row.heatmap_high)
    if format == "png16":
        return stored.png
    if format == "png8":
        return heatmap.png8(stored)
    if format == "npy":
        return heatmap.npy(stored)
    thresholds = Thresholds(review=row.review_threshold, ng=row.ng_threshold)
    contract = PixelContract.model_validate(row.pixels)
    image = decode(kept(state, row.image_sha256), contract, max_pixels=state.settings.max_pixels)
    return heatmap.overlay(image, stored, thresholds)
