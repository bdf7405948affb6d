"""What waits for review: functions of a session, whose transaction is its caller's."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, Select, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from models.bundle import Thresholds
from service.review import CONTESTED, SAMPLED, UNSETTLED, ReviewReason, interest
from service.store import records
from service.store.tables import Feedback, Inspection, ReviewItem

# An operator who has gone away keeps an item from the others for no longer than that.
CLAIM = timedelta(minutes=5)


def consider(session: Session, inspection: Inspection, sampled: float = SAMPLED) -> None:
    """Put a stored inspection into the queue, if a person should look at it."""
    thresholds = Thresholds(review=inspection.review_threshold, ng=inspection.ng_threshold)
    found = interest(
        inspection.id, inspection.score, inspection.verdict, thresholds, sampled=sampled
    )
    if found and not inspection.simulated:
        session.add(_item(inspection, "operator", found.priority, found.reason))


def contest(session: Session, inspection: Inspection) -> None:
    """Put an inspection into the queue of which a candidate thinks otherwise; not if it is
    labelled. So far the session has only read."""
    records.hold(session, inspection)
    if not inspection.simulated and not records.labels_of(session, inspection.id):
        session.merge(_item(inspection, "operator", CONTESTED, "candidate"))


def settle(session: Session, inspection: Inspection, label: Feedback) -> None:
    """Follow a label: the item is done, waits again, or goes on to an engineer.

    An engineer's word is the last, but for `unsure`. Where a label was taken back, the one before
    it, if any, is followed.
    """
    session.execute(delete(ReviewItem).where(ReviewItem.inspection_id == inspection.id))
    if label.withdraws is not None:
        standing = records.labels_of(session, inspection.id)
        if standing:
            settle(session, inspection, standing[0])
        else:
            consider(session, inspection)
    elif label.verdict == "unsure":
        session.add(_item(inspection, "engineer", UNSETTLED, "unsure"))
    elif label.desk != "engineer" and _contradicted(session, label):
        session.add(_item(inspection, "engineer", UNSETTLED + 1, "disagreement"))


def claim(
    session: Session,
    holder: str,
    *,
    desk: str,
    recipe: str | None = None,
    skip: Collection[str] = (),
    count: int = 1,
) -> list[ReviewItem]:
    """The first `count` items that nobody else holds, held by `holder` for CLAIM from now."""
    now = records.now()
    free = or_(
        ReviewItem.claimed_until.is_(None),
        ReviewItem.claimed_until < now,
        ReviewItem.claimed_until > now + CLAIM,  # the clock was set back since
        ReviewItem.claimed_by == holder,
    )
    query = _waiting(desk, recipe).where(free).limit(count)
    if skip:
        query = query.where(ReviewItem.inspection_id.not_in(skip))
    # Two at once pass over each other's rows; SQLite has one writer at a time anyway.
    chosen = query.with_only_columns(ReviewItem.inspection_id).with_for_update(skip_locked=True)
    taken = (
        update(ReviewItem)
        .where(ReviewItem.inspection_id.in_(chosen))
        .values(claimed_by=holder, claimed_until=now + CLAIM)
        .returning(ReviewItem)
    )
    items = session.scalars(taken, execution_options={"populate_existing": True}).all()
    return sorted(items, key=lambda item: (item.priority, item.inspection_id), reverse=True)


def release(session: Session, holder: str, ids: Collection[str] | None = None) -> int:
    """Give back what `holder` holds, or those of it; how many there were."""
    query = update(ReviewItem).where(ReviewItem.claimed_by == holder)
    if ids is not None:
        query = query.where(ReviewItem.inspection_id.in_(ids))
    done = session.execute(query.values(claimed_by=None, claimed_until=None))
    return cast(CursorResult[Any], done).rowcount


def page(
    session: Session, *, desk: str, recipe: str | None, after: ReviewItem | None, limit: int
) -> list[ReviewItem]:
    """What waits, the most informative first; `after` goes on from the last one of a page."""
    query = _waiting(desk, recipe)
    if after:
        query = query.where(
            or_(
                ReviewItem.priority < after.priority,
                and_(
                    ReviewItem.priority == after.priority,
                    ReviewItem.inspection_id < after.inspection_id,
                ),
            )
        )
    return list(session.scalars(query.limit(limit)))


def waiting(session: Session, *, desk: str, recipe: str | None) -> int:
    """How many wait."""
    query = _waiting(desk, recipe).with_only_columns(func.count()).order_by(None)
    return session.scalar(query) or 0


def _waiting(desk: str, recipe: str | None) -> Select[Any]:
    query = select(ReviewItem).where(ReviewItem.desk == desk)
    if recipe:
        query = query.where(ReviewItem.recipe == recipe)
    return query.order_by(ReviewItem.priority.desc(), ReviewItem.inspection_id.desc())


def _contradicted(session: Session, label: Feedback) -> bool:
    """Whether another operator's standing word is the opposite."""
    standing: dict[str, Feedback] = {}
    for earlier in records.labels_of(session, label.inspection_id):
        standing.setdefault(earlier.operator, earlier)  # the newest of each
    opposite = "ng" if label.verdict == "ok" else "ok"
    return any(
        other.verdict == opposite for name, other in standing.items() if name != label.operator
    )


def _item(inspection: Inspection, desk: str, priority: float, reason: ReviewReason) -> ReviewItem:
    return ReviewItem(
        inspection_id=inspection.id,
        recipe=inspection.recipe,
        desk=desk,
        priority=priority,
        reason=reason,
    )
