"""`/v1/trainings`: retrainings on labels, from the wish to the candidate."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from service.errors import NotFound
from service.routes.access import Caller, needs
from service.routes.bundles import REPORT_HEADERS
from service.routes.problems import PROBLEMS, files
from service.routes.results import kept
from service.schemas import (
    CancelRequest,
    LabelChoice,
    TrainingEstimate,
    TrainingRequest,
    TrainingStatus,
)
from service.state import CurrentState
from service.store import records, trainings
from service.store.tables import Training
from service.wire import Name

T = TypeVar("T")

router = APIRouter(prefix="/v1", tags=["trainings"], dependencies=[needs("operator")])


@router.post(
    "/recipes/{recipe}/estimate",
    operation_id="estimate_training",
    responses=PROBLEMS,
)
async def estimate_training(
    state: CurrentState, recipe: str, labels: LabelChoice
) -> TrainingEstimate:
    """What the chosen labels are, and what learning them most likely takes; nothing is begun."""
    return await to_thread.run_sync(state.trainings.estimate, recipe, labels)


@router.post(
    "/recipes/{recipe}/trainings",
    operation_id="ask_training",
    dependencies=[needs("engineer")],
    status_code=201,
    responses=PROBLEMS,
)
async def ask_training(
    state: CurrentState, caller: Caller, recipe: str, asked: TrainingRequest
) -> TrainingStatus:
    """Ask for a retraining of the bundle that decides; a worker carries it out."""
    return await _changed(lambda: state.trainings.ask(recipe, caller.sign(asked)))


@router.get("/trainings", operation_id="list_trainings", responses=PROBLEMS)
async def list_trainings(
    state: CurrentState,
    recipe: Name | None = None,
    limit: Annotated[int, Query(ge=1, le=records.PAGE)] = 20,
) -> list[TrainingStatus]:
    """The newest first."""

    def read() -> list[TrainingStatus]:
        with Session(state.database) as session:
            return [_status(row) for row in trainings.of_recipe(session, recipe, limit)]

    return await to_thread.run_sync(read)


@router.get("/trainings/{id}", operation_id="get_training", responses=PROBLEMS)
async def get_training(state: CurrentState, id: str) -> TrainingStatus:
    """One retraining, and how far it is."""

    def read() -> TrainingStatus:
        with Session(state.database) as session:
            return _status(state.trainings.find(session, id))

    return await to_thread.run_sync(read)


@router.post(
    "/trainings/{id}/cancel",
    operation_id="cancel_training",
    dependencies=[needs("engineer")],
    responses=PROBLEMS,
)
async def cancel_training(
    state: CurrentState, caller: Caller, id: str, asked: CancelRequest
) -> TrainingStatus:
    """End it; one that runs ends within seconds."""
    return await _changed(lambda: state.trainings.cancel(id, by=caller.signature(asked.by)))


@router.post(
    "/trainings/{id}/retry",
    operation_id="retry_training",
    dependencies=[needs("engineer")],
    status_code=201,
    responses=PROBLEMS,
)
async def retry_training(
    state: CurrentState, caller: Caller, id: str, asked: CancelRequest
) -> TrainingStatus:
    """Ask for the same again, from the bundle that decides now."""
    return await _changed(lambda: state.trainings.retry(id, by=caller.signature(asked.by)))


@router.get(
    "/trainings/{id}/report",
    operation_id="get_training_report",
    response_class=Response,
    responses=PROBLEMS | files("text/html"),
)
async def get_training_report(state: CurrentState, id: str) -> Response:
    """What it wrote of its result, as a page; of a result that was refused, too."""

    def read() -> bytes:
        with Session(state.database) as session:
            report = state.trainings.find(session, id).report_sha256
        if report is None:
            raise NotFound("This training has written no report.")
        return kept(state, report)

    page = await to_thread.run_sync(read)
    return Response(page, media_type="text/html; charset=utf-8", headers=REPORT_HEADERS)


async def _changed(change: Callable[[], Training]) -> TrainingStatus:
    return _status(await to_thread.run_sync(change))


def _status(row: Training) -> TrainingStatus:
    facts: dict[str, Any] = {
        name: getattr(row, name)
        for name in (
            "id", "by", "reason", "labels", "retry_of", "champion_version", "state", "step", "done",
            "total", "peak_mb", "snapshot", "bundle_version", "message", "log",
        )
    }  # fmt: skip
    return TrainingStatus.model_validate(
        facts
        | {
            "creation_time": row.created_at,
            "recipe_id": row.recipe,
            "started": row.started_at,
            "finished": row.finished_at,
            "step_seconds_left": _seconds_left(row),
            "report": f"/v1/trainings/{row.id}/report" if row.report_sha256 else None,
        }
    )


def _seconds_left(row: Training) -> float | None:
    """Of the present step, at the pace so far; None before there is one."""
    if row.state != "running" or not row.done or row.step_began_at is None or row.seen_at is None:
        return None
    taken = (row.seen_at - row.step_began_at).total_seconds()
    return round(taken * (row.total - row.done) / row.done, 1)
