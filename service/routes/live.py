"""`/v1/events`, `/v1/feed`, `/v1/shift`: the line as it runs."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.orm import Session

from service.live import Event
from service.routes.access import needs
from service.routes.problems import PROBLEMS
from service.routes.results import result_of
from service.schemas import InspectionFeed, ShiftCounts
from service.state import CurrentState
from service.store import records
from service.store.tables import Inspection
from service.wire import Name

router = APIRouter(prefix="/v1", tags=["live"], dependencies=[needs("operator")])


@router.get("/events", operation_id="follow_events", response_class=EventSourceResponse)
async def follow_events(
    state: CurrentState,
    recipe: Name | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: each `inspection` as its result, each `error` as its problem.

    `Last-Event-ID` goes on where a connection was lost. `reset` says that those before it are
    missing, as at the beginning: `GET /v1/inspections` has them.
    """
    async for event in state.live.follow(last_event_id):
        if recipe is None or event.recipe in (recipe, None):
            kind, content = _shown(event)
            yield ServerSentEvent(raw_data=content, event=kind, id=event.id)


@router.get("/feed", operation_id="read_feed", responses=PROBLEMS)
async def read_feed(
    state: CurrentState,
    after: Annotated[
        int | None, Query(ge=0, lt=2**63, description="A `next`; none: from now on.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=records.PAGE)] = records.PAGE,
) -> InspectionFeed:
    """Inspections in the order in which they were entered, whatever clocks say: for programs that
    pass each of them on.

    Of those that are entered at once, one with a smaller number can be seen a moment after one
    with a greater: who must miss none asks from some numbers before, and knows by their ids what
    it has had.
    """

    def read() -> InspectionFeed:
        with Session(state.database) as session:
            if after is None:
                return InspectionFeed(items=[], next=records.next_number(session) - 1)
            rows = records.entered_after(session, after, limit)
            last = rows[-1].number if rows else None
            return InspectionFeed(items=[result_of(row) for row in rows], next=last or after)

    return await to_thread.run_sync(read)


@router.get("/shift", operation_id="count_shift", responses=PROBLEMS)
async def count_shift(state: CurrentState, recipe: Name | None = None) -> ShiftCounts:
    """What has been inspected since the shift began."""
    shift = state.shifts.at(datetime.now().astimezone())

    def read() -> ShiftCounts:
        with Session(state.database) as session:
            verdicts = records.verdicts_between(session, shift.since, shift.until, recipe)
        return ShiftCounts(
            since=shift.since,
            until=shift.until,
            ok=verdicts.get("ok", 0),
            review=verdicts.get("review", 0),
            ng=verdicts.get("ng", 0),
        )

    return await to_thread.run_sync(read)


def _shown(event: Event) -> tuple[str, str]:
    if isinstance(event.content, Inspection):
        return "inspection", result_of(event.content).model_dump_json()
    if event.content:
        return "error", event.content.model_dump_json()
    return "reset", "{}"
