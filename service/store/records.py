"""Reading and writing rows: functions of a session, whose transaction is its caller's."""

import re
import uuid
from array import array
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import bindparam, func, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from models.bundle import Bundle, Thresholds
from service.store.advisory_locks import AdvisoryLock
from service.store.tables import (
    Base,
    Candidacy,
    Feedback,
    Inspection,
    Promotion,
    RecipeRevision,
    ReviewItem,
    ShadowResult,
    ThresholdRevision,
)
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
    return session.scalar(select(Feedback).where(Feedback.id == id)) if is_id(id) else None


def feedback_by_key(session: Session, key: str) -> Feedback | None:
    """The feedback that a request with this idempotency key made."""
    return session.scalar(select(Feedback).where(Feedback.idempotency_key == key))


# Of the row that is entered next; where several are at once, of each of them.
NEXT_NUMBER = select(func.coalesce(func.max(Inspection.number), 0) + 1).scalar_subquery()


def next_number(session: Session) -> int:
    """For rows that are entered together."""
    return session.scalar(select(NEXT_NUMBER)) or 1


def entered_last(session: Session, limit: int) -> list[Inspection]:
    """The newest by the order in which they were entered, the oldest of them first."""
    numbered = select(Inspection).where(Inspection.number.is_not(None))
    numbered = numbered.order_by(Inspection.number.desc(), Inspection.created_at.desc())
    found = list(session.scalars(numbered.limit(limit)))
    if len(found) < limit:
        before = select(Inspection).where(Inspection.number.is_(None))
        before = before.order_by(Inspection.created_at.desc(), Inspection.id.desc())
        found += session.scalars(before.limit(limit - len(found)))
    return found[::-1]


def entered_after(session: Session, number: int, limit: int) -> list[Inspection]:
    """The oldest of those that were entered after a number, by that order. Those that have the last
    one's number are all there, though they may be more than the limit."""
    order = (Inspection.number, Inspection.id)
    query = select(Inspection).where(Inspection.number > number).order_by(*order)
    found = list(session.scalars(query.limit(limit)))
    if len(found) == limit:
        last = found[-1]
        rest = select(Inspection).where(Inspection.number == last.number, Inspection.id > last.id)
        found += session.scalars(rest.order_by(*order))
    return found


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


def verdicts_between(
    session: Session, since: datetime, until: datetime, recipe: str | None
) -> dict[str, int]:
    """How many inspections had which verdict; those of a drill do not count."""
    query = (
        select(Inspection.verdict, func.count())
        .where(
            Inspection.created_at >= since,
            Inspection.created_at < until,
            Inspection.simulated.is_(False),
        )
        .group_by(Inspection.verdict)
    )
    if recipe:
        query = query.where(Inspection.recipe == recipe)
    return {row[0]: row[1] for row in session.execute(query)}


def latest_feedback(session: Session, ids: list[str]) -> dict[str, Feedback]:
    """The label that counts of each of these inspections, by inspection."""
    query = select(Feedback).where(Feedback.inspection_id.in_(ids), stands())
    return {row.inspection_id: row for row in session.scalars(query.order_by(Feedback.number))}


def hold(session: Session, row: Base) -> None:
    """Keep others from changing a row, or labelling an inspection, until the transaction ends; it
    is read anew. So far the session has only read."""
    if session.connection().dialect.name == "sqlite":
        session.connection().exec_driver_sql("BEGIN IMMEDIATE")
    session.refresh(row, with_for_update=True)


def write_alone(session: Session, lock: AdvisoryLock) -> None:
    """Until the transaction ends, be the only one with this lock: what is read now and decides what
    is written stays so. So far the session has only read."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        # There is one writer at a time; Python's driver has not begun yet.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({lock})"))


def put(session: Session, table: type[Base], **values: object) -> None:
    """Write a row in the place of the one with its key, if there is one. Unlike with merge, two can
    do so at once, or another remove it."""
    is_file = session.connection().dialect.name == "sqlite"
    insert = (sqlite.Insert(table) if is_file else postgresql.Insert(table)).values(**values)
    key = [column.name for column in inspect(table).primary_key]
    others = {name: value for name, value in values.items() if name not in key}
    session.execute(insert.on_conflict_do_update(index_elements=key, set_=others))


def labels_of(session: Session, inspection_id: str, *, standing: bool = True) -> list[Feedback]:
    """The labels of an inspection, the newest first, without those that were taken back or all."""
    query = select(Feedback).where(Feedback.inspection_id == inspection_id)
    if standing:
        query = query.where(stands())
    return list(session.scalars(query.order_by(Feedback.number.desc())))


def labelled(session: Session, wanted: Wanted) -> Iterator[tuple[Inspection, Feedback]]:
    """Every wanted real inspection with the label that counts, oldest label first.

    What waits for an engineer's word is left out: nobody knows yet.
    """
    unsettled = select(ReviewItem.inspection_id).where(ReviewItem.desk == "engineer")
    query = (
        select(Inspection, Feedback)
        .join(Feedback, Feedback.inspection_id == Inspection.id)
        .where(Inspection.simulated.is_(False), stands(), Inspection.id.not_in(unsettled))
        .where(*wanted.conditions())
        .order_by(Feedback.number)
    )
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


_NEWEST_REVISION = select(func.max(RecipeRevision.id)).where(
    RecipeRevision.recipe == bindparam("recipe")
)


def newest_recipe_revision(session: Session, recipe: str) -> int:
    """The number of a recipe's newest revision, 0 where there is none."""
    return session.scalar(_NEWEST_REVISION, {"recipe": recipe}) or 0


def recipe_revisions(session: Session, recipe: str) -> list[RecipeRevision]:
    """All revisions of a recipe, the newest first."""
    query = select(RecipeRevision).where(RecipeRevision.recipe == recipe)
    return list(session.scalars(query.order_by(RecipeRevision.id.desc())))


def recipe_revision(session: Session, number: int) -> RecipeRevision | None:
    """One revision of a recipe."""
    return session.get(RecipeRevision, number)


def revised_recipes(session: Session) -> list[str]:
    """The recipes of which there is a revision."""
    return list(session.scalars(select(RecipeRevision.recipe).distinct()))


def newest_of_part(session: Session, recipe: str, part_id: str) -> Inspection | None:
    """The newest real inspection of a part by a recipe."""
    query = select(Inspection).where(
        Inspection.recipe == recipe,
        Inspection.part_id == part_id,
        Inspection.simulated.is_(False),
    )
    newest = Inspection.number.desc().nulls_last(), Inspection.created_at.desc()
    return session.scalar(query.order_by(*newest).limit(1))


SCORES = 20_000
_AT_ONCE = 500


def scores(session: Session, recipe: str, digest: str) -> "defaultdict[str | None, array[float]]":
    """Raw scores of the newest inspections by one bundle, by the label that counts."""
    label = (
        select(Feedback.verdict)
        .where(Feedback.inspection_id == Inspection.id, stands())
        .order_by(Feedback.number.desc())
        .limit(1)
        .correlate(Inspection)
        .scalar_subquery()
    )
    query = (
        select(Inspection.score, label)
        .where(
            Inspection.recipe == recipe,
            Inspection.bundle_digest == digest,
            Inspection.simulated.is_(False),
        )
        .order_by(Inspection.created_at.desc())
        .limit(SCORES)
    )
    # A few at a time, and only numbers are kept: so many rows at once would leave the process
    # larger for good.
    found: defaultdict[str | None, array[float]] = defaultdict(lambda: array("d"))
    for score, verdict in session.execute(query.execution_options(yield_per=_AT_ONCE)):
        found[verdict].append(score)
    return found


def thresholds_revision_at(session: Session, row: Inspection) -> ThresholdRevision | None:
    """The revision of the thresholds that an inspection was judged by; None: its bundle's own."""
    query = select(ThresholdRevision).where(
        ThresholdRevision.recipe == row.recipe,
        ThresholdRevision.bundle_digest == row.bundle_digest,
        ThresholdRevision.review == row.review_threshold,
        ThresholdRevision.ng == row.ng_threshold,
    )
    # It came before the inspection, unless the clock was set back in between.
    before = ThresholdRevision.created_at <= row.created_at
    return session.scalar(query.order_by(before.desc(), ThresholdRevision.id.desc()).limit(1))


def promotion_at(session: Session, row: Inspection) -> Promotion | None:
    """The promotion by which its bundle decided an inspection."""
    query = select(Promotion).where(
        Promotion.recipe == row.recipe,
        Promotion.bundle_digest == row.bundle_digest,
    )
    before = Promotion.created_at <= row.created_at
    return session.scalar(query.order_by(before.desc(), Promotion.id.desc()).limit(1))


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


def candidacies(session: Session, recipe: str) -> list[Candidacy]:
    """All candidacies of a recipe, the newest first: which bundle runs in its champion's shadow."""
    query = select(Candidacy).where(Candidacy.recipe == recipe)
    return list(session.scalars(query.order_by(Candidacy.id.desc())))


def candidacy_in_force(session: Session, recipe: str) -> Candidacy | None:
    """The newest candidacy of a recipe."""
    query = select(Candidacy).where(Candidacy.recipe == recipe)
    return session.scalar(query.order_by(Candidacy.id.desc()).limit(1))


def highest_nominated(session: Session, recipe: str) -> int:
    """The highest version that has ever been a candidate, 0 if none was."""
    query = select(func.max(Candidacy.bundle_version)).where(Candidacy.recipe == recipe)
    return session.scalar(query) or 0


def agreement(session: Session, candidate: str, champion: str) -> dict[tuple[str, str], int]:
    """How often the champion said one thing and the candidate another, by their two verdicts."""
    query = (
        select(ShadowResult.champion_verdict, ShadowResult.verdict, func.count())
        .where(ShadowResult.bundle_digest == candidate, ShadowResult.champion_digest == champion)
        .group_by(ShadowResult.champion_verdict, ShadowResult.verdict)
    )
    return {(row[0], row[1]): row[2] for row in session.execute(query)}


def differing(
    session: Session, candidate: str, champion: str, limit: int
) -> list[tuple[Inspection, ShadowResult]]:
    """The newest inspections of which the two say different things."""
    query = (
        select(Inspection, ShadowResult)
        .join(ShadowResult, ShadowResult.inspection_id == Inspection.id)
        .where(
            ShadowResult.bundle_digest == candidate,
            ShadowResult.champion_digest == champion,
            ShadowResult.champion_verdict != ShadowResult.verdict,
        )
        .order_by(ShadowResult.created_at.desc())
        .limit(limit)
    )
    return [(row[0], row[1]) for row in session.execute(query)]


def shadows_of(session: Session, inspection_id: str) -> list[ShadowResult]:
    """What candidates would have said of an inspection, in the order in which they did."""
    query = select(ShadowResult).where(ShadowResult.inspection_id == inspection_id)
    return list(session.scalars(query.order_by(ShadowResult.created_at)))
