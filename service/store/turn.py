"""Of several services with one database, whose turn it is to do what one alone must do."""

from contextlib import suppress

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from service.store.outage import AWAY

# As for migrations, any number does, as long as no two kinds of lock share it.
RETENTION = 0x6B697A76


class Turn:
    """A lock of PostgreSQL's that lasts as long as a connection: who ends, or is cut off, has lost
    it. A file has one service alone, whose turn it always is."""

    def __init__(self, database: Engine, number: int) -> None:
        self._database = database
        self._number = number
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
                connection.scalar(text("SELECT pg_try_advisory_lock(:n)"), {"n": self._number})
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
