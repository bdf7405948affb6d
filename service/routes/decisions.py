"""What people decided, as the wire types that show it."""

from service.recipe_settings import RecipeSettings
from service.schemas import (
    CandidateRecord,
    PromotionRecord,
    RecipeRevisionRecord,
    ThresholdsRevision,
)
from service.store.tables import Candidacy, Promotion, RecipeRevision, ThresholdRevision


def thresholds_record(row: ThresholdRevision) -> ThresholdsRevision:
    """Thresholds from a moment on."""
    return ThresholdsRevision(
        creation_time=row.created_at,
        bundle_version=row.bundle_version,
        review=row.review,
        ng=row.ng,
        by=row.by,
        reason=row.reason,
    )


def promotion_record(row: Promotion) -> PromotionRecord:
    """Which bundle decides from a moment on."""
    return PromotionRecord(
        creation_time=row.created_at,
        bundle_version=row.bundle_version,
        bundle_digest=row.bundle_digest,
        by=row.by,
        reason=row.reason,
    )


def candidate_record(row: Candidacy) -> CandidateRecord:
    """Which bundle runs in the shadow from a moment on."""
    return CandidateRecord(
        creation_time=row.created_at,
        bundle_version=row.bundle_version,
        bundle_digest=row.bundle_digest,
        by=row.by,
        reason=row.reason,
    )


def recipe_record(row: RecipeRevision) -> RecipeRevisionRecord:
    """A recipe's settings from a moment on."""
    return RecipeRevisionRecord(
        number=row.id,
        creation_time=row.created_at,
        settings=RecipeSettings.model_validate(row.settings),
        by=row.by,
        reason=row.reason,
    )
