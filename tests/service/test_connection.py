"""Whoever is slow, or never ends, is closed, and harms nobody."""

import socket
import time

import pytest

from service import access, connection
from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from tests.grey_parts import image, write_version
from tests.listening import listening

HEAD = b"POST /v1/inspect HTTP/1.1\r\nHost: kizu\r\nContent-Type: image/png\r\n"


@pytest.fixture
def address(tmp_path):
    write_version(tmp_path / "store")
    settings = Settings(store=tmp_path / "store", data=tmp_path / "data")
    with listening(create_app(settings, open_engine=lambda bundle: FakeEngine())) as address:
        yield address


@pytest.fixture
def camera(address):
    with socket.create_connection(address, timeout=20) as made:
        made.sendall(b"GET /health/live HTTP/1.1\r\nHost: kizu\r\n\r\n")
        assert made.recv(4096).startswith(b"HTTP/1.1 200")  # it is up
        yield made


def shoot(camera):
    """A good frame on the same connection."""
    data = image(50)
    camera.sendall(HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return camera.recv(65536).split(b"\r\n", 1)[0]


def closed(camera):
    """What comes until the other side closes."""
    said = b""
    while part := camera.recv(4096):
        said += part
    return said


@pytest.mark.parametrize("begun", [b"", b"POST /v1/inspect HTTP/1.1\r\nHos"])
def test_a_head_that_does_not_come_is_not_waited_for(camera, address, begun, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_S", 0.3)
    with socket.create_connection(address, timeout=20) as slow:
        slow.sendall(begun)
        started = time.monotonic()
        assert closed(slow) == b""
        assert time.monotonic() - started < 5
    assert shoot(camera) == b"HTTP/1.1 200 OK"


def test_a_second_request_has_its_own_time(camera, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_S", 0.3)
    assert shoot(camera) == b"HTTP/1.1 200 OK"
    camera.sendall(b"POST /v1/insp")
    assert closed(camera) == b""


def test_a_body_that_does_not_come_is_not_waited_for(camera, address, monkeypatch):
    monkeypatch.setattr(access, "BODY_S", 0.3)
    with socket.create_connection(address, timeout=20) as slow:
        slow.sendall(HEAD + b"Content-Length: 1000\r\n\r\nabc")
        said = closed(slow)
    assert said.startswith(b"HTTP/1.1 408")
    assert b"did not come within 0.3 s" in said
    assert shoot(camera) == b"HTTP/1.1 200 OK"


def test_whoever_follows_events_is_not_in_a_hurry(address, monkeypatch):
    monkeypatch.setattr(access, "BODY_S", 0.2)
    monkeypatch.setattr(connection, "HEAD_S", 0.2)
    with socket.create_connection(address, timeout=20) as watcher:
        watcher.sendall(b"GET /v1/events HTTP/1.1\r\nHost: kizu\r\n\r\n")
        assert watcher.recv(4096).startswith(b"HTTP/1.1 200")
        watcher.settimeout(1.0)
        with pytest.raises(TimeoutError):
            while watcher.recv(4096):
                pass


@pytest.mark.parametrize("header", [b"X-Long: " + b"x" * 70_000, b"X-Many: 1\r\n" * 7_000])
def test_a_head_that_never_ends_is_refused(camera, address, header):
    with socket.create_connection(address, timeout=20) as endless:
        endless.sendall(b"GET / HTTP/1.1\r\n" + header)
        assert closed(endless).startswith(b"HTTP/1.1 400")
    assert shoot(camera) == b"HTTP/1.1 200 OK"
