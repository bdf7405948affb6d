"""Results that wait on this computer's disk until the database is there again."""

import json
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from service.store.tables import Inspection

_SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    key TEXT UNIQUE,
    sampled REAL NOT NULL,
    content TEXT NOT NULL
)
"""


@dataclass(frozen=True)
class Waiting:
    """A result, and what share of passed parts its recipe shows for review."""

    row: Inspection
    sampled: float


class Spool:
    """A file of rows. What `keep` returned from is on the disk."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        with self._open() as connection:
            connection.execute(_SCHEMA)
            connection.commit()
            self._count: int = connection.execute("SELECT count(*) FROM waiting").fetchone()[0]

    def __len__(self) -> int:
        return self._count

    def keep(self, waiting: Waiting) -> None:
        """Raises sqlite3.IntegrityError where its key is another one's."""
        row = waiting.row
        given = row.id, row.idempotency_key, waiting.sampled, _written(row)
        with self._lock, self._open() as connection:
            connection.execute(
                "INSERT INTO waiting (id, key, sampled, content) VALUES (?, ?, ?, ?)", given
            )
            connection.commit()
            self._count += 1

    def by_key(self, key: str) -> Inspection | None:
        """The result of an earlier request with this key."""
        if not self._count:
            return None
        with self._lock, self._open() as connection:
            found = connection.execute("SELECT content FROM waiting WHERE key = ?", (key,))
            content = found.fetchone()
        return _read(content[0]) if content else None

    def oldest(self, most: int) -> list[Waiting]:
        """Those that wait longest."""
        query = "SELECT content, sampled FROM waiting ORDER BY number LIMIT ?"
        with self._lock, self._open() as connection:
            return [Waiting(_read(one), share) for one, share in connection.execute(query, (most,))]

    def remove(self, ids: Sequence[str]) -> None:
        """They have arrived."""
        with self._lock, self._open() as connection:
            connection.executemany("DELETE FROM waiting WHERE id = ?", [(id,) for id in ids])
            connection.commit()
            self._count -= len(ids)

    def _open(self) -> "closing[sqlite3.Connection]":
        connection = sqlite3.connect(self._file, timeout=10)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return closing(connection)


def _written(row: Inspection) -> str:
    values: dict[str, Any] = {name: getattr(row, name) for name in _COLUMNS}
    return json.dumps(values | {"created_at": row.created_at.isoformat()})


def _read(content: str) -> Inspection:
    values = json.loads(content)
    return Inspection(**values | {"created_at": datetime.fromisoformat(values["created_at"])})


# What waits is not removed, and is numbered when it is entered.
_COLUMNS = [
    column.name
    for column in Inspection.__table__.columns
    if column.name not in ("files_removed_at", "number")
]
