"""Opening the database so that a committed row survives a power cut."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Dialect, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from models.errors import KizuError
from service.store.advisory_locks import AdvisoryLock
from service.store.names import Names

MIGRATIONS = Path(__file__).parent / "migrations"
Age = Literal["none", "older", "current", "newer"]
_SWITCHES = 20  # tries of the switch to the write-ahead log


class DatabaseError(KizuError):
    """A database that cannot be opened, or would lose what it acknowledged."""


def open_database(url: str) -> Engine:
    """Connect, check durability, and bring the schema up to date. Raises DatabaseError."""
    with _explained():
        engine = _connect(url)
        if _age(engine) == "newer":
            engine.dispose()
            raise DatabaseError(
                "The database is of a newer Kizu.",
                remedy="Install that one again, or restore a backup from before it.",
            )
        migrate(engine)
    return engine


def look_into_database(url: str) -> tuple[Engine | None, Age]:
    """The database as it is, and how old its schema; None where there is none, or an empty one.

    Nothing is created or changed. Raises DatabaseError.
    """
    with _explained():
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
            return None, "none"
        engine = _connect(url)
        age = _age(engine)
    if age == "none":
        engine.dispose()
        return None, "none"
    return engine, age


def migrate(engine: Engine, revision: str = "head") -> None:
    """Run the migrations that are missing, one process at a time, all of them or none."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({AdvisoryLock.MIGRATION})"))
        else:
            # Python's driver would commit before each CREATE TABLE, and two would start at once.
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.isolation_level = None
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
        connection.invalidate()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (ArgumentError, SQLAlchemyError, ImportError, ValueError) as error:
        shown = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise DatabaseError(
            f"The database cannot be opened: {shown}.",
            remedy="Check KIZU_DATABASE, such as postgresql+psycopg://user@host/kizu.",
        ) from error


def _connect(url: str) -> Engine:
    return _sqlite(url) if make_url(url).get_backend_name() == "sqlite" else _postgresql(url)


def _age(engine: Engine) -> Age:
    known = ScriptDirectory(str(MIGRATIONS))
    with engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None:
        return "none"
    if revision not in {script.revision for script in known.walk_revisions()}:
        return "newer"
    return "current" if revision == known.get_current_head() else "older"


def _sqlite(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": 10})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        # FULL: with NORMAL, the WAL loses acknowledged rows in a power cut.
        _write_ahead(connection)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. Unlike all else, that fails at once where another process
    holds the file, so an empty transaction waits for it, as long as the driver's timeout."""
    for _ in range(_SWITCHES):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("COMMIT")
        else:
            return
    connection.execute("PRAGMA journal_mode=WAL")


def _postgresql(url: str) -> Engine:
    # A server that is gone without a word is noticed within seconds, not within hours.
    noticed = {
        "connect_timeout": 3, "keepalives_idle": 5, "keepalives_interval": 2,
        "keepalives_count": 2, "tcp_user_timeout": 3000, "client_encoding": "utf8",
    }  # fmt: skip
    engine = create_engine(
        url, pool_pre_ping=True, pool_size=8, pool_timeout=5, connect_args=noticed
    )
    names = Names()

    @event.listens_for(engine, "do_connect")
    def locate(dialect: Dialect, _: Any, __: Any, parameters: dict[str, Any]) -> None:
        host = parameters.get("host")
        # Neither a socket's folder, nor several hosts, of which libpq takes the first that answers.
        if host and not host.startswith("/") and "," not in host:
            try:
                found = names.addresses(host)
            except OSError as error:
                raise dialect.loaded_dbapi.OperationalError(
                    f"nobody said where the host {host!r} is: {error or 'no answer'}"
                ) from error
            # The name stays, for certificates; with each address, as libpq wants it.
            parameters |= {"host": ",".join([host] * len(found)), "hostaddr": ",".join(found)}

    with engine.connect() as connection:
        if (encoding := connection.scalar(text("SHOW server_encoding"))) != "UTF8":
            connection.invalidate()  # or it would stay open in a pool that nobody owns
            raise DatabaseError(
                f"The database keeps texts as {encoding}, which cannot hold all of them.",
                remedy="Create it with ENCODING 'UTF8' TEMPLATE template0.",
            )
        for setting in ("fsync", "synchronous_commit"):
            if connection.scalar(text(f"SHOW {setting}")) == "off":
                connection.invalidate()
                raise DatabaseError(
                    f"PostgreSQL runs with {setting} = off and would lose acknowledged rows.",
                    remedy=f"Set {setting} = on.",
                )
    return engine
