"""Reading and writing rows: functions of a session, whose transaction is its caller's."""

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from models.bundle import Bundle, Thresholds, Verdict
from service.store.tables import Feedback, Inspection, Promotion, ThresholdRevision

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


def inspection_by_key(session: Session, key: str) -> Inspection | None:
    """The inspection that a request with this idempotency key made."""
    return session.scalar(select(Inspection).where(Inspection.idempotency_key == key))


def feedback_by_key(session: Session, key: str) -> Feedback | None:
    """The feedback that a request with this idempotency key made."""
    return session.scalar(select(Feedback).where(Feedback.idempotency_key == key))


def inspections(
    session: Session,
    *,
    recipe: str | None = None,
    verdict: Verdict | None = None,
    part_id: str | None = None,
    before: Inspection | None = None,
    limit: int = PAGE,
) -> list[Inspection]:
    """The newest first; `before` goes on from the last one of a page."""
    query = select(Inspection).order_by(Inspection.created_at.desc(), Inspection.id.desc())
    if recipe:
        query = query.where(Inspection.recipe == recipe)
    if verdict:
        query = query.where(Inspection.verdict == verdict)
    if part_id:
        query = query.where(Inspection.part_id == part_id)
    if before:
        query = query.where(
            (Inspection.created_at < before.created_at)
            | ((Inspection.created_at == before.created_at) & (Inspection.id < before.id))
        )
    return list(session.scalars(query.limit(limit)))


def latest_feedback(session: Session, ids: list[str]) -> dict[str, Feedback]:
    """The newest feedback of each of these inspections, by inspection."""
    query = select(Feedback).where(Feedback.inspection_id.in_(ids)).order_by(Feedback.number)
    return {row.inspection_id: row for row in session.scalars(query)}


def labelled(session: Session, recipe: str | None) -> Iterator[tuple[Inspection, Feedback]]:
    """Every real inspection with its newest feedback, oldest feedback first."""
    query = (
        select(Inspection, Feedback)
        .join(Feedback, Feedback.inspection_id == Inspection.id)
        .where(Inspection.simulated.is_(False))
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
