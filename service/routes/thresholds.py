"""`/v1/recipes/{recipe}/thresholds`: where the lines are drawn, and what they do."""

from dataclasses import asdict
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from models.bundle import Bundle, Thresholds
from service.consequences import Scores
from service.errors import BadRequest, Superseded
from service.routes.access import Caller, needs
from service.routes.decisions import thresholds_record
from service.routes.problems import PROBLEMS
from service.schemas import (
    ScoreHistogram,
    ThresholdConsequences,
    ThresholdsRequest,
    ThresholdsRevision,
)
from service.state import CurrentState, State
from service.store import records
from service.store.tables import ThresholdRevision

router = APIRouter(
    prefix="/v1/recipes/{recipe}", tags=["thresholds"], dependencies=[needs("operator")]
)


@router.get("/thresholds", operation_id="list_thresholds", responses=PROBLEMS)
async def list_thresholds(state: CurrentState, recipe: str) -> list[ThresholdsRevision]:
    """The revisions of the thresholds, the newest first."""

    def read() -> list[ThresholdsRevision]:
        with Session(state.database) as session:
            return [thresholds_record(row) for row in records.threshold_revisions(session, recipe)]

    state.registry.champion(recipe)
    return await to_thread.run_sync(read)


@router.post(
    "/thresholds",
    operation_id="set_thresholds",
    dependencies=[needs("engineer")],
    status_code=201,
    responses=PROBLEMS,
)
async def set_thresholds(
    state: CurrentState, caller: Caller, recipe: str, asked: ThresholdsRequest
) -> ThresholdsRevision:
    """Draw the lines anew, from the next inspection on; nothing is retrained."""
    asked = caller.sign(asked)
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
            return thresholds_record(row)

    return await to_thread.run_sync(write)


@router.get("/thresholds/consequences", operation_id="foresee_thresholds", responses=PROBLEMS)
async def foresee_thresholds(
    state: CurrentState,
    recipe: str,
    review: Annotated[float, Query(allow_inf_nan=False)],
    ng: Annotated[float, Query(allow_inf_nan=False)],
) -> ThresholdConsequences:
    """What these lines would have done to the last parts, with 95 % intervals; nothing changes."""
    if review > ng:
        raise BadRequest("The review threshold must not be above the ng threshold.")
    bundle = state.registry.champion(recipe).bundle

    def read() -> ThresholdConsequences:
        found = _scores(state, bundle).consequences(Thresholds(review=review, ng=ng))
        return ThresholdConsequences.model_validate(asdict(found))

    return await to_thread.run_sync(read)


@router.get("/scores", operation_id="count_scores", responses=PROBLEMS)
async def count_scores(state: CurrentState, recipe: str) -> ScoreHistogram:
    """How the raw scores of the last parts are spread, by label, and where the lines are."""
    bundle = state.registry.champion(recipe).bundle

    def read() -> ScoreHistogram:
        with Session(state.database) as session:
            thresholds = records.thresholds_in_force(session, bundle)
        histogram = _scores(state, bundle).histogram(thresholds.review, thresholds.ng)
        return ScoreHistogram(
            bundle_version=bundle.manifest.version,
            thresholds=thresholds,
            trained=bundle.manifest.thresholds,
            **asdict(histogram),
        )

    return await to_thread.run_sync(read)


def _scores(state: State, bundle: Bundle) -> Scores:
    with Session(state.database) as session:
        by_label = records.scores(session, bundle.manifest.recipe, bundle.digest)
    return Scores(by_label["ok"], by_label["ng"], by_label[None] + by_label["unsure"])
