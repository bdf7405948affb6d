"""Recipes: what decides for them, since when, and where the lines are drawn."""

from anyio import to_thread
from fastapi import APIRouter
from sqlalchemy.orm import Session

from models.bundle import list_versions
from service.errors import Superseded
from service.registry import Champion
from service.routes.problems import PROBLEMS
from service.schemas import (
    PromotionRecord,
    PromotionRequest,
    RecipeStatus,
    ThresholdsRequest,
    ThresholdsRevision,
)
from service.state import CurrentState, State
from service.store import records
from service.store.tables import ThresholdRevision

router = APIRouter(prefix="/v1/recipes", tags=["recipes"])


@router.get("", operation_id="list_recipes")
async def list_recipes(state: CurrentState) -> list[RecipeStatus]:
    """All recipes that can be inspected."""

    def read() -> list[RecipeStatus]:
        return [_status(state, champion) for champion in state.registry.champions.values()]

    return await to_thread.run_sync(read)


@router.get("/{recipe}", operation_id="get_recipe", responses=PROBLEMS)
async def get_recipe(state: CurrentState, recipe: str) -> RecipeStatus:
    """One recipe."""
    return await to_thread.run_sync(_status, state, state.registry.champion(recipe))


@router.get("/{recipe}/thresholds", operation_id="list_thresholds", responses=PROBLEMS)
async def list_thresholds(state: CurrentState, recipe: str) -> list[ThresholdsRevision]:
    """The revisions of the thresholds, the newest first."""

    def read() -> list[ThresholdsRevision]:
        with Session(state.database) as session:
            return [_revision(row) for row in records.threshold_revisions(session, recipe)]

    state.registry.champion(recipe)
    return await to_thread.run_sync(read)


@router.post(
    "/{recipe}/thresholds", operation_id="set_thresholds", status_code=201, responses=PROBLEMS
)
async def set_thresholds(
    state: CurrentState, recipe: str, asked: ThresholdsRequest
) -> ThresholdsRevision:
    """Draw the lines anew, from the next inspection on; nothing is retrained."""
    bundle = state.registry.champion(recipe).bundle
    if asked.bundle_version != bundle.manifest.version:
        raise Superseded(
            f"Version {bundle.manifest.version} of {recipe!r} decides, not "
            f"{asked.bundle_version}; their scores do not compare.",
            remedy="Look at the scores of the version that decides, and send its number.",
        )

    def write() -> ThresholdsRevision:
        with Session(state.database) as session, session.begin():
            row = ThresholdRevision(
                created_at=records.now(),
                recipe=recipe,
                bundle_version=bundle.manifest.version,
                bundle_digest=bundle.digest,
                review=asked.review,
                ng=asked.ng,
                by=asked.by,
                reason=asked.reason,
            )
            session.add(row)
            return _revision(row)

    return await to_thread.run_sync(write)


@router.get("/{recipe}/promotions", operation_id="list_promotions", responses=PROBLEMS)
async def list_promotions(state: CurrentState, recipe: str) -> list[PromotionRecord]:
    """Every change of what decides, the newest first."""
    state.registry.champion(recipe)
    return await to_thread.run_sync(_promotions, state, recipe)


@router.post("/{recipe}/promotions", operation_id="promote", status_code=201, responses=PROBLEMS)
async def promote(state: CurrentState, recipe: str, asked: PromotionRequest) -> PromotionRecord:
    """Let a version from the store decide, an older one too; no request is dropped."""

    def write() -> PromotionRecord:
        state.registry.promote(recipe, asked.version, by=asked.by, reason=asked.reason)
        return _promotions(state, recipe)[0]

    return await to_thread.run_sync(write)


def _status(state: State, champion: Champion) -> RecipeStatus:
    manifest = champion.bundle.manifest
    with Session(state.database) as session:
        thresholds = records.thresholds_in_force(session, champion.bundle)
    return RecipeStatus(
        recipe_id=manifest.recipe,
        bundle_version=manifest.version,
        bundle_digest=champion.bundle.digest,
        device=champion.device,
        versions=list_versions(state.settings.store, manifest.recipe),
        thresholds=thresholds,
        input=manifest.input.model_dump() | manifest.pixels.model_dump(),
        metrics=manifest.metrics,
        calibration_count=manifest.calibration.count,
    )


def _promotions(state: State, recipe: str) -> list[PromotionRecord]:
    with Session(state.database) as session:
        return [
            PromotionRecord(
                creation_time=row.created_at,
                bundle_version=row.bundle_version,
                bundle_digest=row.bundle_digest,
                by=row.by,
                reason=row.reason,
            )
            for row in records.promotions(session, recipe)
        ]


def _revision(row: ThresholdRevision) -> ThresholdsRevision:
    return ThresholdsRevision(
        creation_time=row.created_at,
        bundle_version=row.bundle_version,
        review=row.review,
        ng=row.ng,
        by=row.by,
        reason=row.reason,
    )
