"""Whether the database is away: found out once, then left alone until it answers again."""

import threading
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy import Engine, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

log = structlog.get_logger()

T = TypeVar("T")

AWAY = (OperationalError, InterfaceError, PoolTimeoutError)


class Outage:
    """Of a database on another computer, or in another process. A file here is never away: what
    keeps it from being written keeps everything else from being written, too."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self.can_be = database.dialect.name != "sqlite"
        self._why: Exception | None = None
        self._lock = threading.Lock()

    @property
    def now(self) -> bool:
        """Whether it is away."""
        return self._why is not None

    def attempt(self, action: Callable[[], T], instead: Callable[[Exception], T]) -> T:
        """Do something with the database, or something else while it is away: then it is not even
        tried, since to find that out anew can take seconds."""
        why = self._why
        if why is not None:
            return instead(why)
        try:
            return action()
        except AWAY as error:
            if not self.can_be:
                raise
            self._begin(error)
            return instead(error)

    def is_over(self) -> bool:
        """Ask the database whether it is there again."""
        try:
            with self._database.connect() as connection:
                connection.execute(text("SELECT 1"))
        except AWAY:
            return False
        with self._lock:
            if self._why is not None:
                log.info("the database is there again")
            self._why = None
        return True

    def _begin(self, error: Exception) -> None:
        with self._lock:
            if self._why is None:
                log.error("the database is away", error=str(error).splitlines()[0])
            self._why = error
