"""Trainings and their workers: functions of a session, whose transaction is its caller's."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

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


class Beats:
    """Of which trainings nothing more is heard: their rows stay as they are. How long, is measured
    here: the clocks of two computers differ, and any may be set."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[datetime | None, float]] = {}

    def lost(self, session: Session) -> dict[str, datetime | None]:
        """Those that nobody carries out any more, and when they say they were last seen."""
        now = self._clock()
        running = select(Training.id, Training.seen_at).where(Training.state == "running")
        before, self._heard = self._heard, {}
        for id, seen_at in session.execute(running):
            last, since = before.get(id, (seen_at, now))
            self._heard[id] = (seen_at, since if last == seen_at else now)
        silent = SILENCE.total_seconds()
        return {id: seen for id, (seen, since) in self._heard.items() if now - since >= silent}


def take(
    session: Session, worker: str, lost: Mapping[str, datetime | None] = MappingProxyType({})
) -> Training | None:
    """The oldest that waits, for this worker; None where none does.

    One that is `lost` waits again; after too many such ends it has failed.
    """
    now = records.now()
    for id, seen_at in lost.items():
        _give_back(session, id, seen_at, now)
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


def _give_back(session: Session, id: str, seen_at: datetime | None, now: datetime) -> None:
    """Unless its worker was heard of just now."""
    lost = (Training.id == id) & (Training.state == "running") & (Training.seen_at == seen_at)
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


def alive(session: Session, worker: str) -> None:
    """A worker is there."""
    records.put(session, Worker, name=worker, seen_at=records.now())


def any_worker(session: Session) -> bool:
    """Whether any worker is there."""
    now = records.now()
    seen = Worker.seen_at.between(now - SILENCE, now + SILENCE)
    return session.scalar(select(Worker).where(seen).limit(1)) is not None
