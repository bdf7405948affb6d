"""Reading and writing rows: functions of a session, whose transaction is its caller's."""

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from models.bundle import Bundle, Thresholds
from service.store.tables import Feedback, Inspection, Promotion, ReviewItem, ThresholdRevision
from service.store.wanted import Wanted, stands

PAGE = 100


def new_id() -> str:
    """A random id for a row."""
    return uuid.uuid4().hex


def is_id(text: str) -> bool:
    """Whether a text could be such an id."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def inspection(session: Session, id: str) -> Inspection | None:
    """One inspection."""
    return session.get(Inspection, id)


def inspections_of(session: Session, ids: list[str]) -> Iterator[Inspection]:
    """These inspections, in any order."""
    yield from session.scalars(select(Inspection).where(Inspection.id.in_(ids)))


def inspection_by_key(session: Session, key: str) -> Inspection | None:
    """The inspection that a request with this idempotency key made."""
    return session.scalar(select(Inspection).where(Inspection.idempotency_key == key))


def feedback(session: Session, id: str) -> Feedback | None:
    """One label."""
    return session.scalar(select(Feedback).where(Feedback.id == id))


def feedback_by_key(session: Session, key: str) -> Feedback | None:
    """The feedback that a request with this idempotency key made."""
    return session.scalar(select(Feedback).where(Feedback.idempotency_key == key))


def inspections(
    session: Session, wanted: Wanted, *, before: Inspection | None = None, limit: int = PAGE
) -> list[Inspection]:
    """The newest first; `before` goes on from the last one of a page."""
    query = select(Inspection).where(*wanted.conditions())
    if before:
        query = query.where(
            (Inspection.created_at < before.created_at)
            | ((Inspection.created_at == before.created_at) & (Inspection.id < before.id))
        )
    query = query.order_by(Inspection.created_at.desc(), Inspection.id.desc())
    return list(session.scalars(query.limit(limit)))


def verdicts_since(session: Session, since: datetime, recipe: str | None) -> dict[str, int]:
    """How many inspections had which verdict; those of a drill do not count."""
    query = (
        select(Inspection.verdict, func.count())
        .where(Inspection.created_at >= since, Inspection.simulated.is_(False))
        .group_by(Inspection.verdict)
    )
    if recipe:
        query = query.where(Inspection.recipe == recipe)
    return {row[0]: row[1] for row in session.execute(query)}


def latest_feedback(session: Session, ids: list[str]) -> dict[str, Feedback]:
    """The label that counts of each of these inspections, by inspection."""
    query = select(Feedback).where(Feedback.inspection_id.in_(ids), stands())
    return {row.inspection_id: row for row in session.scalars(query.order_by(Feedback.number))}


def hold(session: Session, inspection: Inspection) -> None:
    """Keep others from labelling an inspection until the transaction ends."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        # Python's driver has not begun yet: so far the session has only read.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        session.refresh(inspection, with_for_update=True)


def labels_of(session: Session, inspection_id: str, *, standing: bool = True) -> list[Feedback]:
    """The labels of an inspection, the newest first, without those that were taken back or all."""
    query = select(Feedback).where(Feedback.inspection_id == inspection_id)
    if standing:
        query = query.where(stands())
    return list(session.scalars(query.order_by(Feedback.number.desc())))


def labelled(session: Session, recipe: str | None) -> Iterator[tuple[Inspection, Feedback]]:
    """Every real inspection with the label that counts, oldest label first.

    What waits for an engineer's word is left out: nobody knows yet.
    """
    unsettled = select(ReviewItem.inspection_id).where(ReviewItem.desk == "engineer")
    query = (
        select(Inspection, Feedback)
        .join(Feedback, Feedback.inspection_id == Inspection.id)
        .where(Inspection.simulated.is_(False), stands(), Inspection.id.not_in(unsettled))
        .order_by(Feedback.number)
    )
    if recipe:
        query = query.where(Inspection.recipe == recipe)
    newest: dict[str, tuple[Inspection, Feedback]] = {}
    for found, feedback in session.execute(query):
        newest[found.id] = (found, feedback)
    yield from newest.values()


# Made once: to put it together takes longer than to carry it out, and each image asks.
_THRESHOLDS = (
    select(ThresholdRevision.review, ThresholdRevision.ng)
    .where(
        ThresholdRevision.recipe == bindparam("recipe"),
        ThresholdRevision.bundle_digest == bindparam("digest"),
    )
    .order_by(ThresholdRevision.id.desc())
    .limit(1)
)


def thresholds_in_force(session: Session, bundle: Bundle) -> Thresholds:
    """The newest revision for this very bundle, else the bundle's own."""
    wanted = {"recipe": bundle.manifest.recipe, "digest": bundle.digest}
    revision = session.execute(_THRESHOLDS, wanted).first()
    if revision is None:
        return bundle.manifest.thresholds
    return Thresholds(review=revision.review, ng=revision.ng)


def threshold_revisions(session: Session, recipe: str) -> list[ThresholdRevision]:
    """All revisions of a recipe, the newest first."""
    query = select(ThresholdRevision).where(ThresholdRevision.recipe == recipe)
    return list(session.scalars(query.order_by(ThresholdRevision.id.desc())))


def promotion_in_force(session: Session, recipe: str) -> Promotion | None:
    """The newest promotion of a recipe."""
    query = select(Promotion).where(Promotion.recipe == recipe)
    return session.scalar(query.order_by(Promotion.id.desc()).limit(1))


def highest_considered(session: Session, recipe: str) -> int:
    """The highest version that was there when somebody decided, 0 if nobody did."""
    query = select(func.max(Promotion.newest_version)).where(Promotion.recipe == recipe)
    return session.scalar(query) or 0


def promotions(session: Session, recipe: str) -> list[Promotion]:
    """All promotions of a recipe, the newest first."""
    query = select(Promotion).where(Promotion.recipe == recipe)
    return list(session.scalars(query.order_by(Promotion.id.desc())))
