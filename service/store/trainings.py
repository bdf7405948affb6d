"""Trainings and their workers: functions of a session, whose transaction is its caller's."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.store import records
from service.store.tables import Training, Worker

# A worker that has not been heard of for so long is not there any more.
SILENCE = timedelta(seconds=20)
MOST_ATTEMPTS = 3


def find(session: Session, id: str) -> Training | None:
    """One training."""
    return session.get(Training, id) if records.is_id(id) else None


def of_recipe(session: Session, recipe: str | None, limit: int) -> Sequence[Training]:
    """The newest first."""
    query = select(Training).order_by(Training.created_at.desc(), Training.id.desc()).limit(limit)
    if recipe:
        query = query.where(Training.recipe == recipe)
    return session.scalars(query).all()


def last_measured(session: Session, recipe: str) -> Training | None:
    """The newest that went through all of it, whatever came of it."""
    query = (
        select(Training)
        .where(Training.recipe == recipe, Training.state.in_(("succeeded", "refused")))
        .order_by(Training.finished_at.desc())
    )
    return session.scalar(query.limit(1))


def take(session: Session, worker: str) -> Training | None:
    """The oldest that waits, for this worker; None where none does.

    One whose worker has gone silent waits again; after too many such ends it has failed.
    """
    now = records.now()
    lost = (Training.state == "running") & (Training.seen_at < now - SILENCE)
    session.execute(
        update(Training)
        .where(lost, Training.attempts >= MOST_ATTEMPTS)
        .values(
            state="failed",
            finished_at=now,
            message=f"The worker ended {MOST_ATTEMPTS} times while it was training, as it does "
            "where the computer is switched off or runs out of memory. Try again with nothing else "
            "running, or with fewer labels.",
        )
    )
    session.execute(update(Training).where(lost).values(state="queued", worker=None))
    oldest = (
        select(Training.id)
        .where(Training.state == "queued")
        .order_by(Training.created_at, Training.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    taken = (
        update(Training)
        .where(Training.id.in_(oldest))
        .values(
            state="running", worker=worker, seen_at=now, started_at=now, step="", done=0, total=0,
            step_began_at=None, message="", log="", attempts=Training.attempts + 1,
        )
        .returning(Training)
    )  # fmt: skip
    return session.scalars(taken, execution_options={"populate_existing": True}).one_or_none()


def alive(session: Session, worker: str) -> None:
    """A worker is there."""
    session.merge(Worker(name=worker, seen_at=records.now()))


def any_worker(session: Session) -> bool:
    """Whether any worker is there."""
    query = select(Worker).where(Worker.seen_at >= records.now() - SILENCE).limit(1)
    return session.scalar(query) is not None
