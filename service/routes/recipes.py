"""Recipes: what decides for them, since when, and where defects count."""

from anyio import to_thread
from fastapi import APIRouter
from sqlalchemy.orm import Session

from models.bundle import list_versions
from service.registry import Champion
from service.routes.access import Caller, needs
from service.routes.decisions import promotion_record, recipe_record
from service.routes.problems import PROBLEMS
from service.schemas import (
    PromotionRecord,
    PromotionRequest,
    RecipeRevisionRecord,
    RecipeRevisionRequest,
    RecipeStatus,
)
from service.state import CurrentState, State
from service.store import records

router = APIRouter(prefix="/v1/recipes", tags=["recipes"], dependencies=[needs("operator")])


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


@router.get("/{recipe}/revisions", operation_id="list_revisions", responses=PROBLEMS)
async def list_revisions(state: CurrentState, recipe: str) -> list[RecipeRevisionRecord]:
    """Every revision of the recipe's settings, the newest first."""

    def read() -> list[RecipeRevisionRecord]:
        with Session(state.database) as session:
            return [recipe_record(row) for row in records.recipe_revisions(session, recipe)]

    state.registry.champion(recipe)
    return await to_thread.run_sync(read)


@router.post(
    "/{recipe}/revisions",
    operation_id="revise_recipe",
    dependencies=[needs("engineer")],
    status_code=201,
    responses=PROBLEMS,
)
async def revise_recipe(
    state: CurrentState, caller: Caller, recipe: str, asked: RecipeRevisionRequest
) -> RecipeRevisionRecord:
    """Where defects count and from which size on, from the next image on; nothing is retrained."""
    asked = caller.sign(asked)
    state.registry.champion(recipe)

    def write() -> RecipeRevisionRecord:
        row = state.recipes.revise(recipe, asked.settings, by=asked.by, reason=asked.reason)
        return recipe_record(row)

    return await to_thread.run_sync(write)


@router.get("/{recipe}/promotions", operation_id="list_promotions", responses=PROBLEMS)
async def list_promotions(state: CurrentState, recipe: str) -> list[PromotionRecord]:
    """Every change of what decides, the newest first."""
    state.registry.champion(recipe)
    return await to_thread.run_sync(_promotions, state, recipe)


@router.post(
    "/{recipe}/promotions",
    operation_id="promote",
    dependencies=[needs("engineer")],
    status_code=201,
    responses=PROBLEMS,
)
async def promote(
    state: CurrentState, caller: Caller, recipe: str, asked: PromotionRequest
) -> PromotionRecord:
    """Let a version from the store decide, an older one too; no request is dropped."""
    asked = caller.sign(asked)

    def write() -> PromotionRecord:
        state.registry.promote(
            recipe, asked.version, by=asked.by, reason=asked.reason,
            loaded=state.candidates.of(recipe),
        )  # fmt: skip
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
        return [promotion_record(row) for row in records.promotions(session, recipe)]
