"""Stored rows as the wire types that describe them."""

from typing import cast

from models.bundle import Thresholds, Verdict
from service.regions import Region
from service.schemas import FeedbackSummary, InspectionResult
from service.store.tables import Feedback, Inspection


def result_of(row: Inspection, feedback: Feedback | None = None) -> InspectionResult:
    """The result as a caller sees it."""
    address = f"/v1/inspections/{row.id}"
    return InspectionResult(
        id=row.id,
        recipe_id=row.recipe,
        part_id=row.part_id,
        camera=row.camera,
        is_simulated=row.simulated,
        result_state="completed",
        creation_time=row.created_at,
        verdict=cast(Verdict, row.verdict),
        score=row.score,
        percentile=row.percentile,
        thresholds=Thresholds(review=row.review_threshold, ng=row.ng_threshold),
        regions=[Region.model_validate(region) for region in row.regions],
        image=f"{address}/image",
        width=row.width,
        height=row.height,
        heatmap=f"{address}/heatmap",
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
            "defect_class": row.defect_class,
            "operator": row.operator,
            "comment": row.comment,
            "boxes": row.boxes,
            "has_mask": row.mask_sha256 is not None,
        }
    )
