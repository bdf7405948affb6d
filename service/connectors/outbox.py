"""What is to be passed on, on this computer's disk until whoever is to have it has it."""

import fcntl
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.errors import KizuError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver TEXT NOT NULL,
    id TEXT NOT NULL,
    content TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_of ON messages (receiver, number);
CREATE TABLE IF NOT EXISTS taken (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY CHECK (one = 1), after INTEGER NOT NULL);
"""
# Far more than can be entered while another one that began before is not yet to be seen.
_REMEMBERED = 20_000


class OutboxHeld(KizuError):
    """An outbox that another process works with."""


@dataclass(frozen=True)
class Message:
    """One for one receiver; `id` is the same however often it is sent."""

    number: int
    id: str
    content: str


@dataclass(frozen=True)
class Letter:
    """A new result, and who is to have it."""

    id: str
    content: str
    receivers: tuple[str, ...]


class Outbox:
    """A file of messages. What `take_in` returned from is on the disk, and only what was `sent`
    leaves it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._news = threading.Condition()
        self._edition = 0
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connection()) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)

    @property
    def after(self) -> int | None:
        """Up to where the feed was taken in; None where it never was."""
        with self._transaction() as connection:
            row = connection.execute("SELECT after FROM place").fetchone()
        return int(row[0]) if row else None

    def take_in(self, letters: Iterable[Letter], after: int) -> int:
        """Keep those that are new, in their order, and where the feed goes on: all of it or
        nothing. How many were new."""
        new = 0
        with self._transaction() as connection:
            for letter in letters:
                taken = connection.execute(
                    "INSERT OR IGNORE INTO taken (id) VALUES (?)", (letter.id,)
                )
                if taken.rowcount:
                    new += 1
                    connection.executemany(
                        "INSERT INTO messages (receiver, id, content) VALUES (?, ?, ?)",
                        [(one, letter.id, letter.content) for one in letter.receivers],
                    )
            connection.execute(
                "INSERT INTO place VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET after = ?",
                (after, after),
            )
            connection.execute(
                "DELETE FROM taken WHERE number <= (SELECT max(number) FROM taken) - ?",
                (_REMEMBERED,),
            )
        if new:
            self.wake()
        return new

    def oldest(self, receiver: str, most: int) -> list[Message]:
        """Those that wait longest for a receiver."""
        query = (
            "SELECT number, id, content FROM messages WHERE receiver = ? ORDER BY number LIMIT ?"
        )
        with self._transaction() as connection:
            return [Message(*row) for row in connection.execute(query, (receiver, most))]

    def sent(self, messages: Iterable[Message]) -> None:
        """They have arrived."""
        with self._transaction() as connection:
            connection.executemany(
                "DELETE FROM messages WHERE number = ?", [(one.number,) for one in messages]
            )

    def waiting(self) -> Counter[str]:
        """How many wait for each receiver."""
        with self._transaction() as connection:
            query = "SELECT receiver, count(*) FROM messages GROUP BY receiver"
            return Counter(dict(connection.execute(query).fetchall()))

    def forget(self, receiver: str) -> int:
        """Throw away what waits for a receiver; how many that were."""
        with self._transaction() as connection:
            query = "DELETE FROM messages WHERE receiver = ?"
            return connection.execute(query, (receiver,)).rowcount

    @contextmanager
    def held(self) -> Iterator[None]:
        """By one process at a time: two would send everything twice. Raises OutboxHeld."""
        with self._file.with_name(f"{self._file.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutboxHeld(
                    f"Another kizu connect passes on what is in {self._file}.",
                    remedy="End that one, or name another outbox.",
                ) from error
            yield

    @property
    def edition(self) -> int:
        """Another one whenever something new is there."""
        return self._edition

    def wait(self, edition: int, seconds: float) -> None:
        """Until it is another edition than that, or for so long."""
        with self._news:
            self._news.wait_for(lambda: self._edition != edition, seconds)

    def wake(self) -> None:
        """Let nobody wait any longer."""
        with self._news:
            self._edition += 1
            self._news.notify_all()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, closing(self._connection()) as connection, connection:
            yield connection

    def _connection(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file)
        connection.execute("PRAGMA synchronous=FULL")
        return connection
