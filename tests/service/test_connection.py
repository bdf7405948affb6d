"""Whoever is slow, or never ends, is closed, and harms nobody."""

import select
import socket
import time
from http.client import HTTPResponse

import httpx2 as httpx
import pytest

from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from tests.grey_parts import image, write_version
from tests.listening import listening

HEAD = b"POST /v1/inspect HTTP/1.1\r\nHost: kizu\r\nContent-Type: image/png\r\n"


@pytest.fixture
def address(tmp_path, request):
    """Of a service, whose patience a test may have marked."""
    write_version(tmp_path / "store")
    patience = getattr(request, "param", {})
    settings = Settings(store=tmp_path / "store", data=tmp_path / "data", **patience)
    with listening(create_app(settings, open_engine=lambda bundle: FakeEngine())) as address:
        yield address


def patient(**seconds):
    """A service that waits for so long."""
    return pytest.mark.parametrize("address", [seconds], indirect=True)


@pytest.fixture
def camera(address):
    with socket.create_connection(address, timeout=20) as made:
        made.sendall(b"GET /health/live HTTP/1.1\r\nHost: kizu\r\n\r\n")
        assert status(made) == 200  # it is up
        yield made


def shoot(camera):
    """A good frame on the same connection; the status of what comes."""
    data = image(50)
    camera.sendall(HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return status(camera)


def status(camera):
    """Of an answer, all of which has come."""
    answer = HTTPResponse(camera)
    answer.begin()
    answer.read()
    return answer.status


def closed(camera):
    """What comes until the other side closes."""
    said = b""
    while part := camera.recv(4096):
        said += part
    return said


@pytest.mark.parametrize("begun", [b"", b"\r\n", b"POST /v1/inspect HTTP/1.1\r\nHos"])
@patient(head_seconds=0.3)
def test_a_head_that_does_not_come_is_not_waited_for(camera, address, begun):
    with socket.create_connection(address, timeout=20) as slow:
        slow.sendall(begun)
        started = time.monotonic()
        assert closed(slow) == b""
        assert time.monotonic() - started < 5
    assert shoot(camera) == 200


@pytest.mark.parametrize("begun", [b"POST /v1/insp", b"\r\n"])
@patient(head_seconds=0.3)
def test_a_second_request_has_its_own_time(camera, begun):
    assert shoot(camera) == 200
    camera.sendall(begun)
    assert closed(camera) == b""


@patient(body_seconds=0.3)
def test_a_body_that_does_not_come_is_not_waited_for(camera, address):
    with socket.create_connection(address, timeout=20) as slow:
        slow.sendall(HEAD + b"Content-Length: 1000\r\n\r\nabc")
        said = closed(slow)
    assert said.startswith(b"HTTP/1.1 408")
    assert b"did not come within 0.3 s" in said
    assert shoot(camera) == 200


@pytest.mark.parametrize("rest", [b"a", b"a" * 1000], ids=["a little", "all of it"])
@patient(body_seconds=0.3, head_seconds=0.3)
def test_a_body_that_nobody_wants_is_not_waited_for_either(camera, address, rest):
    with socket.create_connection(address, timeout=20) as slow:
        slow.sendall(b"POST /nowhere HTTP/1.1\r\nHost: kizu\r\nContent-Length: 1000\r\n\r\n")
        assert slow.recv(4096).startswith(b"HTTP/1.1 40")
        slow.sendall(rest)
        assert closed(slow) == b""
    assert shoot(camera) == 200


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"], ids=["stays", "would go"])
@patient(answer_seconds=0.3)
def test_an_answer_that_nobody_takes_is_not_kept(camera, address, more):
    side = 4000
    sent = httpx.post(
        "http://{}:{}/v1/inspect".format(*address), content=bytes(side * side),
        params={"width": side, "height": side, "pixel_format": "Mono8"},
        headers={"content-type": "application/octet-stream"}, timeout=30,
    )  # fmt: skip
    with socket.create_connection(address, timeout=20) as slow:
        asked = f"GET {sent.json()['image']} HTTP/1.1\r\nHost: kizu\r\n".encode()
        slow.sendall(asked + more + b"\r\n")
        gone = select.poll()
        gone.register(slow, 0)  # tells of errors alone
        assert gone.poll(20_000)
    assert shoot(camera) == 200


@patient(head_seconds=0.2, body_seconds=0.2, answer_seconds=0.2)
def test_whoever_follows_events_is_not_in_a_hurry(address):
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
    assert shoot(camera) == 200
