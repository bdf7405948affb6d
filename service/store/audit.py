"""Who changed what that decides: a log that is only appended to, each entry bound to all before it.

It is written in the very transaction of the change, whoever makes it: what is in one of these
tables is in the log. Rows that a backup brings are one entry, with the file's digest.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event, insert, inspect, select, text
from sqlalchemy.orm import Session

from models.errors import KizuError
from service.identity import Identity
from service.store.advisory_locks import AdvisoryLock
from service.store.tables import (
    ApiKey,
    AuditEntry,
    Base,
    Candidacy,
    Feedback,
    Promotion,
    RecipeRevision,
    ThresholdRevision,
    Training,
    User,
)

# What is logged, and the columns that say what an entry is about.
SUBJECTS: dict[type[Base], tuple[str, ...]] = {
    ThresholdRevision: ("recipe",),
    RecipeRevision: ("recipe",),
    Promotion: ("recipe",),
    Candidacy: ("recipe",),
    Training: ("recipe", "id"),
    Feedback: ("inspection_id",),
    User: ("name",),
    ApiKey: ("name",),
}
# Not for a log that others read.
_SECRET = ("password", "digest")
# How a training goes on is its worker's own record.
_ONLY: dict[type[Base], tuple[str, ...]] = {
    Training: ("recipe", "by", "reason", "labels", "retry_of", "champion_version", "cancelled_by")
}
_START = "0" * 64
PROCESS = Identity("kizu", "admin", "process")

acting: ContextVar[Identity] = ContextVar("acting", default=PROCESS)


class AuditError(KizuError):
    """The log is not what was once written."""


@contextmanager
def acts(identity: Identity) -> Iterator[None]:
    """Whose changes follow."""
    token = acting.set(identity)
    try:
        yield
    finally:
        acting.reset(token)


@event.listens_for(Session, "after_flush")
def _log(session: Session, _: Any) -> None:
    changes = [
        *((one, "add", _values(one)) for one in session.new),
        *((one, "change", _changed(one)) for one in session.dirty),
        *((one, "remove", {}) for one in session.deleted),
    ]
    for one, action, details in changes:
        if type(one) in SUBJECTS and (details or action == "remove"):
            subject = " ".join(str(getattr(one, column)) for column in SUBJECTS[type(one)])
            note(session, f"{one.__tablename__}: {action}", subject, details)


def note(session: Session, action: str, subject: str, details: dict[str, Any]) -> None:
    """Append an entry. What goes past the session's objects, in bulk, must do so itself; on SQLite
    it must have begun to write."""
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        # SQLite has one writer at a time, and this transaction has written already.
        connection.execute(text(f"SELECT pg_advisory_xact_lock({AdvisoryLock.AUDIT})"))
    last = select(AuditEntry.number, AuditEntry.digest).order_by(AuditEntry.number.desc()).limit(1)
    number, previous = connection.execute(last).one_or_none() or (0, _START)
    who = acting.get()
    entry = {
        "number": number + 1,
        "created_at": datetime.now(UTC),
        "name": who.name,
        "kind": who.kind,
        "role": who.role,
        "action": action,
        "subject": subject,
        "details": json.dumps(details, sort_keys=True, ensure_ascii=False, default=str),
        "previous": previous,
    }
    connection.execute(insert(AuditEntry).values(**entry, digest=_digest(entry)))


def _digest(entry: dict[str, Any]) -> str:
    at = entry["created_at"].astimezone(UTC).isoformat(timespec="microseconds")
    whole = json.dumps(entry | {"created_at": at}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()


def _values(one: Any) -> dict[str, Any]:
    found = {}
    for column in _columns(one):
        value = getattr(one, column)
        if value is not None:
            found[column] = "set" if column in _SECRET else value
    return found


def _changed(one: Any) -> dict[str, Any]:
    state = inspect(one)
    found = {}
    for column in _columns(one):
        history = state.attrs[column].history
        if history.has_changes():
            found[column] = "changed" if column in _SECRET else history.added[0]
    return found


def _columns(one: Any) -> list[str]:
    columns = [column.key for column in inspect(one).mapper.column_attrs]
    return [column for column in columns if column in _ONLY.get(type(one), columns)]


def page(session: Session, before: int | None, limit: int) -> list[AuditEntry]:
    """The newest entries, or those before a number."""
    found = select(AuditEntry).order_by(AuditEntry.number.desc()).limit(limit)
    if before is not None:
        found = found.where(AuditEntry.number < before)
    return list(session.scalars(found))


def verify(session: Session, head: str | None = None) -> tuple[int, str]:
    """How many entries there are and the digest of the last, once all are as they were written.

    `head` is what an earlier verification said, `NUMBER:DIGEST`: only who noted it can tell that
    the log was cut off. Raises AuditError.
    """
    previous, number, found = _START, 0, {0: _START}
    wanted = int(head.partition(":")[0]) if head else 0
    for row in session.scalars(select(AuditEntry).order_by(AuditEntry.number)).yield_per(1000):
        entry = {column: getattr(row, column) for column in _ENTRY}
        if row.number != number + 1:
            raise AuditError(f"Entry {number + 1} is missing.")
        if row.previous != previous or row.digest != _digest(entry):
            raise AuditError(f"Entry {row.number} is not what was written.")
        number, previous = row.number, row.digest
        if number == wanted:
            found[number] = previous
    if head and found.get(wanted) != head.partition(":")[2]:
        raise AuditError(f"Entry {wanted} is not the one that was noted, or the log was cut off.")
    return number, previous


_ENTRY = (
    "number", "created_at", "name", "kind", "role", "action", "subject", "details", "previous",
)  # fmt: skip
