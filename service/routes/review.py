"""`/v1/review`: what people should look at, and who is looking at it."""

from typing import Annotated, cast

from anyio import to_thread
from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from service.errors import NotFound
from service.review import ReviewReason
from service.routes.access import Caller, check_desk, needs
from service.routes.problems import PROBLEMS
from service.routes.results import result_of
from service.schemas import ClaimRequest, Desk, ReleaseRequest, ReviewEntry, ReviewPage
from service.state import CurrentState
from service.store import records, review_queue
from service.store.tables import ReviewItem
from service.wire import Name

router = APIRouter(prefix="/v1/review", tags=["review"], dependencies=[needs("operator")])


@router.get("", operation_id="list_review", responses=PROBLEMS)
async def list_review(
    state: CurrentState,
    desk: Desk = "operator",
    recipe: Name | None = None,
    after: Name | None = None,
    limit: Annotated[int, Query(ge=1, le=records.PAGE)] = 50,
) -> ReviewPage:
    """What waits, the most informative first; `after` is the `next` of the page before."""

    def read() -> ReviewPage:
        with Session(state.database) as session:
            last = session.get(ReviewItem, after) if after else None
            if after and last is None:
                raise NotFound(
                    f"{after!r} no longer waits for review.", remedy="Begin again without after."
                )
            items = review_queue.page(session, desk=desk, recipe=recipe, after=last, limit=limit)
            return ReviewPage(
                items=_entries(session, items),
                waiting=review_queue.waiting(session, desk=desk, recipe=recipe),
                next=items[-1].inspection_id if len(items) == limit else None,
            )

    return await to_thread.run_sync(read)


@router.post("/claims", operation_id="claim_review", responses=PROBLEMS)
async def claim_review(state: CurrentState, caller: Caller, asked: ClaimRequest) -> ReviewPage:
    """The next items for one screen: nobody else is given them for five minutes from now.

    Asking again gives what the screen holds already, and holds it longer.
    """
    check_desk(caller, asked.desk)

    def take() -> ReviewPage:
        with Session(state.database) as session, session.begin():
            items = review_queue.claim(
                session, asked.session, desk=asked.desk, recipe=asked.recipe, skip=asked.skip,
                count=asked.count,
            )  # fmt: skip
            waiting = review_queue.waiting(session, desk=asked.desk, recipe=asked.recipe)
            return ReviewPage(items=_entries(session, items), waiting=waiting, next=None)

    return await to_thread.run_sync(take)


@router.post("/releases", operation_id="release_review", responses=PROBLEMS)
async def release_review(state: CurrentState, asked: ReleaseRequest) -> dict[str, int]:
    """Give claims back, so that others are given the items at once; how many there were."""

    def give() -> int:
        with Session(state.database) as session, session.begin():
            return review_queue.release(session, asked.session, asked.inspections)

    return {"released": await to_thread.run_sync(give)}


def _entries(session: Session, items: list[ReviewItem]) -> list[ReviewEntry]:
    ids = [item.inspection_id for item in items]
    feedback = records.latest_feedback(session, ids)
    rows = {row.id: row for row in records.inspections_of(session, ids)}
    return [
        ReviewEntry(
            inspection=result_of(rows[item.inspection_id], feedback.get(item.inspection_id)),
            desk=cast(Desk, item.desk),
            reason=cast(ReviewReason, item.reason),
            priority=item.priority,
            claimed_until=item.claimed_until,
        )
        for item in items
    ]
