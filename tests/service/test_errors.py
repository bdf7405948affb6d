"""What a caller is told of what failed underneath."""

import errno
import sqlite3

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from service.errors import StorageUnavailable, as_service_error


def sqlite_without_room():
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError) as raised:
        connection.execute("CREATE TABLE t (x)")
    return OperationalError("INSERT", {}, raised.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        sqlite_without_room(),
        OperationalError("INSERT", {}, psycopg.errors.DiskFull()),
    ],
    ids=["file", "SQLite", "PostgreSQL"],
)
def test_a_full_disk_is_told_as_such_and_sent_again(error):
    told = as_service_error(error)
    assert isinstance(told, StorageUnavailable)
    assert told.retryable
    assert "The disk is full" in told.message


def test_another_failure_of_the_database_is_no_full_disk():
    told = as_service_error(OperationalError("INSERT", {}, sqlite3.OperationalError("locked")))
    assert isinstance(told, StorageUnavailable)
    assert "full" not in told.message


def test_of_what_is_unforeseen_nothing_is_told():
    assert "secret" not in str(as_service_error(OSError(errno.EIO, "secret")))
