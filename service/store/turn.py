"""Of several services with one database, whose turn it is to do what one alone must do."""

from contextlib import suppress

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from service.store.advisory_locks import AdvisoryLock
from service.store.outage import AWAY


class Turn:
    """A lock of PostgreSQL's that lasts as long as a connection: who ends, or is cut off, has lost
    it. A file has one service alone, whose turn it always is."""

    def __init__(self, database: Engine, lock: AdvisoryLock) -> None:
        self._database = database
        self._lock = lock
        self._held: Connection | None = None

    def is_mine(self) -> bool:
        """Whether it is this process's turn now; it stays so, as far as it can. Raises what the
        database does."""
        if self._database.dialect.name == "sqlite":
            return True
        if self._held is not None:
            try:
                self._held.execute(text("SELECT 1"))
            except DBAPIError:
                self.close()
            else:
                return True
        connection = self._database.connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()  # no other's work may come by it
        got = False
        try:
            got = bool(
                connection.scalar(text("SELECT pg_try_advisory_lock(:n)"), {"n": self._lock})
            )
        finally:
            if got:
                self._held = connection
            else:
                connection.close()
        return got

    def close(self) -> None:
        """Leave it to the others."""
        if self._held is not None:
            with suppress(*AWAY):
                self._held.close()
            self._held = None
