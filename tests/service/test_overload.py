"""What a line sees of a service that has more to do than it can."""

import http.client
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from tests.listening import listening
from tests.waiting import until

JPEG = {"Content-Type": "image/jpeg"}
RUN_S = 0.05


class Service:
    """One that listens, and cameras that each send a part to it."""

    def __init__(self, host, port, image):
        self.address = host, port
        self._image = image
        self._cameras = []

    def connect(self):
        return http.client.HTTPConnection(*self.address, timeout=30)

    def post(self, path="/inspect"):
        connection = self.connect()
        connection.request("POST", path, self._image, JPEG)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer

    def send(self, count):
        def one():
            assert self.post().status == 200

        for _ in range(count):
            self._cameras.append(threading.Thread(target=one))
            self._cameras[-1].start()

    def join(self):
        for camera in self._cameras:
            camera.join(30)
        self._cameras.clear()

    def wait_for(self, line):
        connection = self.connect()

        def shown():
            connection.request("GET", "/metrics")
            return line in connection.getresponse().read().decode()

        until(shown)
        connection.close()


@contextmanager
def serving(store, tmp_path, image, run, **settings):
    given = Settings(store=store, data=tmp_path / "data", max_batch=1, **settings)
    app = create_app(given, open_engine=lambda bundle: FakeEngine(run))
    with listening(app) as (host, port):
        yield Service(host, port, image)


@pytest.fixture
def full(store, tmp_path, good_part):
    """A service with no room for another image, until its device is `free`."""
    free, entered = threading.Event(), threading.Event()

    def wait(images):
        entered.set()
        free.wait(30)

    with serving(store, tmp_path, good_part, wait, max_queue=1) as service:
        service.send(1)
        assert entered.wait(30)
        service.send(1)
        service.wait_for("kizu_queue_images 1.0")
        service.free = free.set
        yield service
        free.set()
        service.join()


def test_an_image_that_would_be_refused_is_refused_unread(full, good_part):
    line = full.connect()
    line.putrequest("POST", "/inspect")
    line.putheader("Content-Type", "image/jpeg")
    line.putheader("Content-Length", str(len(good_part)))
    line.endheaders()  # and not a byte of the image
    refused = line.getresponse()
    assert (refused.status, refused.getheader("retry-after")) == (503, "1")
    assert b'"error"' in refused.read()
    assert refused.getheader("x-request-id")
    full.free()
    full.join()
    # The same connection, once the image that nobody wanted has passed, is as good as before.
    line.send(good_part)
    line.request("POST", "/inspect", good_part, JPEG)
    assert line.getresponse().status == 200
    line.close()


def test_who_asks_first_need_not_send_what_is_refused(full, good_part):
    head = (
        "POST /inspect HTTP/1.1\r\nHost: kizu\r\nContent-Type: image/jpeg\r\n"
        f"Content-Length: {len(good_part)}\r\nExpect: 100-continue\r\n\r\n"
    ).encode()
    with socket.create_connection(full.address, timeout=30) as line, line.makefile("rb") as answer:
        line.sendall(head)
        assert answer.readline().startswith(b"HTTP/1.1 503")
        rest = answer.read()  # to the end: what came next would be taken for the image
        assert b"connection: close" in rest.lower()
    full.free()
    full.join()
    with socket.create_connection(full.address, timeout=30) as line, line.makefile("rb") as answer:
        line.sendall(head)
        assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answer.readline() == b"\r\n"
        line.sendall(good_part)
        assert answer.readline().startswith(b"HTTP/1.1 200")


def test_who_cannot_be_in_time_is_refused_at_once(store, tmp_path, good_part):
    held, going_on = threading.Event(), threading.Event()

    def run(images):
        time.sleep(RUN_S)  # what this device takes
        if held.is_set():
            going_on.wait(30)

    with serving(store, tmp_path, good_part, run) as service:
        service.send(12)  # by which it learns that
        service.join()
        held.set()
        service.send(9)
        service.wait_for("kizu_queue_images 8.0")  # and one runs
        refused = service.post("/inspect?deadline_ms=300")  # 504, had it waited
        assert (refused.status, refused.getheader("retry-after")) == (503, "1")
        going_on.set()
        assert service.post("/inspect?deadline_ms=9000").status == 200
        service.join()
