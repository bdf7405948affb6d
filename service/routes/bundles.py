"""The versions of a recipe's model: what each is worth, and what a candidate would say."""

from typing import Annotated, cast

from anyio import to_thread
from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from models.bundle import REPORT, Verdict, list_versions, look_into_bundle
from models.errors import BundleError
from service.errors import NotFound
from service.routes.access import Caller, needs
from service.routes.decisions import candidate_record
from service.routes.problems import PROBLEMS, files
from service.routes.results import result_of
from service.schemas import (
    AgreementCount,
    BundleStatus,
    CandidateRecord,
    CandidateRequest,
    Difference,
    ShadowComparison,
)
from service.state import CurrentState, State
from service.store import records

router = APIRouter(
    prefix="/v1/recipes/{recipe}", tags=["bundles"], dependencies=[needs("operator")]
)

# A report is a page that training wrote: it may show pictures, and nothing else.
REPORT_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; frame-ancestors 'none'",
}


@router.get("/bundles", operation_id="list_bundles", responses=PROBLEMS)
async def list_bundles(state: CurrentState, recipe: str) -> list[BundleStatus]:
    """All versions in the store, the newest first."""
    state.registry.champion(recipe)

    def read() -> list[BundleStatus]:
        versions = list_versions(state.settings.store, recipe)
        found = (_status(state, recipe, version) for version in reversed(versions))
        return [status for status in found if status]

    return await to_thread.run_sync(read)


@router.get(
    "/bundles/{version}/report",
    operation_id="get_report",
    response_class=Response,
    responses=PROBLEMS | files("text/html"),
)
async def get_report(state: CurrentState, recipe: str, version: int) -> Response:
    """What training wrote of a version, as a page."""
    state.registry.champion(recipe)

    def read() -> bytes:
        if version not in list_versions(state.settings.store, recipe):
            raise NotFound(f"The store has no version {version} of {recipe!r}.")
        return look_into_bundle(state.settings.store / recipe / str(version)).read(REPORT)

    page = await to_thread.run_sync(read)
    return Response(page, media_type="text/html; charset=utf-8", headers=REPORT_HEADERS)


@router.get("/candidates", operation_id="list_candidates", responses=PROBLEMS)
async def list_candidates(state: CurrentState, recipe: str) -> list[CandidateRecord]:
    """Every change of what runs in the champion's shadow, the newest first."""
    state.registry.champion(recipe)
    return await to_thread.run_sync(_candidacies, state, recipe)


@router.post(
    "/candidates",
    operation_id="nominate",
    dependencies=[needs("engineer")],
    status_code=201,
    responses=PROBLEMS,
)
async def nominate(
    state: CurrentState, caller: Caller, recipe: str, asked: CandidateRequest
) -> CandidateRecord:
    """Let a version run in the champion's shadow: it is asked too, and decides nothing."""
    asked = caller.sign(asked)

    def write() -> CandidateRecord:
        state.candidates.nominate(recipe, asked.version, by=asked.by, reason=asked.reason)
        return _candidacies(state, recipe)[0]

    return await to_thread.run_sync(write)


@router.get("/shadow", operation_id="compare_shadow", responses=PROBLEMS)
async def compare_shadow(
    state: CurrentState, recipe: str, examples: Annotated[int, Query(ge=0, le=100)] = 12
) -> ShadowComparison:
    """What champion and candidate said of the same images, since both are what they are."""
    champion = state.registry.champion(recipe).bundle
    candidate = state.candidates.of(recipe)
    if candidate is None:
        raise NotFound(
            f"{recipe!r} has no candidate.", remedy=f"POST /v1/recipes/{recipe}/candidates"
        )
    rival = candidate.bundle

    def read() -> ShadowComparison:
        with Session(state.database) as session:
            counts = records.agreement(session, rival.digest, champion.digest)
            found = records.differing(session, rival.digest, champion.digest, examples)
            feedback = records.latest_feedback(session, [row.id for row, _ in found])
            return ShadowComparison(
                champion_version=champion.manifest.version,
                candidate_version=rival.manifest.version,
                images=sum(counts.values()),
                agreeing=sum(number for (one, other), number in counts.items() if one == other),
                counts=[
                    AgreementCount(
                        champion=cast(Verdict, one), candidate=cast(Verdict, other), images=number
                    )
                    for (one, other), number in sorted(counts.items())
                ],
                differences=[
                    Difference(
                        inspection=result_of(row, feedback.get(row.id)),
                        candidate_verdict=cast(Verdict, shadow.verdict),
                        candidate_score=shadow.score,
                    )
                    for row, shadow in found
                ],
            )

    return await to_thread.run_sync(read)


def _status(state: State, recipe: str, version: int) -> BundleStatus | None:
    try:
        bundle = look_into_bundle(state.settings.store / recipe / str(version))
    except BundleError:
        return None  # what it is cannot be said; the health page lists it
    champion, candidate = state.registry.champion(recipe), state.candidates.of(recipe)
    manifest = bundle.manifest
    decides = champion.bundle.digest == bundle.digest
    shadows = candidate is not None and candidate.bundle.digest == bundle.digest
    device = champion.device if decides else None
    if candidate and shadows:
        device = candidate.engine.device
    return BundleStatus(
        version=version,
        digest=bundle.digest,
        creation_time=manifest.created_at,
        role="champion" if decides else "candidate" if shadows else None,
        origin=manifest.origin,
        parent_version=manifest.parent_version,
        method=manifest.method,
        backbone=manifest.backbone.name,
        metrics=manifest.metrics,
        snapshot=manifest.snapshot,
        device=device,
        problem=state.registry.problem(recipe, version),
        report=f"/v1/recipes/{recipe}/bundles/{version}/report",
    )


def _candidacies(state: State, recipe: str) -> list[CandidateRecord]:
    with Session(state.database) as session:
        return [candidate_record(row) for row in records.candidacies(session, recipe)]
