"""A cable between the service and what it needs, that a test can pull out and put in again."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Cable:
    """Carries bytes from a port of its own to a Unix socket, or to a port of this machine."""

    def __init__(self, to: Path | int) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._waker = socket.socketpair()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._lock = threading.RLock()
        self._plugged = True
        self._running = True
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def pull(self) -> None:
        """Every connection breaks, and no new one is made."""
        with self._lock:
            self._plugged = False
            while self._ends:
                self._drop(next(iter(self._ends)))

    def plug(self) -> None:
        """Connections are made again."""
        with self._lock:
            self._plugged = True

    def close(self) -> None:
        self._running = False
        self._waker.send(b"x")
        self._thread.join()
        self.pull()
        for one in (self._listener, self._wake, self._waker):
            one.close()
        self._selector.close()

    def _carry(self) -> None:
        while self._running:
            for key, _ in self._selector.select():
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj in self._ends:
                        self._pass_on(key.fileobj)  # type: ignore[arg-type]

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        if not self._plugged:
            near.close()
            return
        if isinstance(self._to, int):
            far = socket.create_connection(("127.0.0.1", self._to))
        else:
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self._to))
        self._ends |= {near: far, far: near}
        for end in (near, far):
            self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket) -> None:
        try:
            data = end.recv(65536)
            if data:
                self._ends[end].sendall(data)
                return
        except OSError:
            pass
        self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        other = self._ends.pop(end)
        del self._ends[other]
        for one in (end, other):
            self._selector.unregister(one)
            one.close()


@contextmanager
def cable(to: Path | int) -> Iterator[Cable]:
    """One that is pulled out for good at the end."""
    made = Cable(to)
    try:
        yield made
    finally:
        made.close()
