import socket
import threading
import time

import pytest

from service.store.database import DatabaseError, open_database
from service.store.names import PATIENCE_S, Names


@pytest.fixture
def resolver(monkeypatch):
    """The system's resolver, as long as `answers` is set; else nobody answers it, whoever asks."""
    answers, real = threading.Event(), socket.getaddrinfo
    answers.set()

    def ask(*arguments, **options):
        answers.wait()
        return real(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    yield answers
    answers.set()


def test_while_no_name_server_answers_a_host_is_where_it_was_last(resolver):
    names = Names()
    there = names.addresses("localhost")
    assert set(there) <= {"127.0.0.1", "::1"}
    resolver.clear()
    started = time.monotonic()
    assert names.addresses("localhost") == there
    assert time.monotonic() - started < PATIENCE_S + 1
    with pytest.raises(TimeoutError):
        names.addresses("never.asked.for.test")


def test_an_address_needs_no_name_server(resolver):
    resolver.clear()
    assert Names().addresses("192.0.2.7") == ["192.0.2.7"]
    assert Names().addresses("2001:db8::7") == ["2001:db8::7"]


def test_a_host_that_is_not_known_is_said():
    with pytest.raises(DatabaseError, match="nobody said where the host 'nowhere"):
        open_database("postgresql+psycopg://kizu@nowhere.invalid/kizu")


def test_a_server_is_asked_for_at_the_address_that_was_found():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(DatabaseError, match=rf"127\.0\.0\.1\D.* port {port}"):
        open_database(f"postgresql+psycopg://kizu@localhost:{port}/kizu")
