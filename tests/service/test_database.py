"""The schema comes up whole, once, on a database that keeps what it acknowledges."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, inspect, text, update
from sqlalchemy.orm import Session

from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from service.store.database import DatabaseError, open_database
from service.store.tables import Base, Inspection
from tests.grey_parts import inspect as inspect_part
from tests.grey_parts import write_version


def test_the_migrations_make_the_tables_of_the_code(database_url):
    database = open_database(database_url)
    found = inspect(database)
    for name, table in Base.metadata.tables.items():
        columns = {column["name"]: column["nullable"] for column in found.get_columns(name)}
        assert columns == {column.name: column.nullable for column in table.columns}
        indexes = {index["name"] for index in found.get_indexes(name) if not index["unique"]}
        assert indexes == {index.name for index in table.indexes}
    database.dispose()


def test_numbers_of_inspections_do_not_run_out(database_url, tmp_path):
    """Of twenty a second, those of 32 bits would in three years."""
    write_version(tmp_path / "store")
    settings = Settings(store=tmp_path / "store", data=tmp_path, database=database_url)
    with TestClient(create_app(settings, open_engine=lambda bundle: FakeEngine())) as client:
        first = inspect_part(client, 50)["id"]
        database = open_database(database_url)
        with Session(database) as session, session.begin():
            session.execute(update(Inspection).values(number=2**40))
        database.dispose()
        second = inspect_part(client, 60)["id"]
        found = client.get("/v1/feed", params={"after": 2**40 - 1}).json()
        assert [one["id"] for one in found["items"]] == [first, second]
        assert found["next"] == 2**40 + 1
        assert client.get("/v1/feed", params={"after": 2**62}).json()["items"] == []


def test_several_processes_start_at_once(database_url):
    with ThreadPoolExecutor(4) as starters:
        for database in starters.map(open_database, [database_url] * 4):
            database.dispose()


def _end_in_the_middle(url):
    import os

    from alembic import op

    made = op.create_table
    count = 0

    def create_table(*args, **kwargs):
        nonlocal count
        count += 1
        if count == 3:
            os._exit(1)
        return made(*args, **kwargs)

    op.create_table = create_table
    open_database(url)


def test_a_start_that_ended_in_the_middle_leaves_nothing(database_url):
    process = multiprocessing.get_context("spawn").Process(
        target=_end_in_the_middle, args=(database_url,)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 1
    open_database(database_url).dispose()


def test_sqlite_syncs_every_commit(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'kizu.sqlite3'}")
    with database.connect() as connection:
        assert connection.scalar(text("PRAGMA synchronous")) == 2
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    database.dispose()


def test_a_postgresql_that_would_lose_rows_is_refused(postgresql):
    name = "kizu_careless"
    admin = create_engine(postgresql, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
    admin.dispose()
    with pytest.raises(DatabaseError, match="synchronous_commit = off"):
        open_database(postgresql.replace("/postgres?", f"/{name}?"))


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://h/d", "postgresql+psycopg://h:abc/d", "sqlite:////none/at/all.db"]
)
def test_a_database_that_cannot_be_opened_is_said(url):
    with pytest.raises(DatabaseError, match="cannot be opened"):
        open_database(url)
