"""An application behind a real server, for what no test client shows."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from structlog.testing import capture_logs

from service.connection import Connection


@contextmanager
def listening(app: FastAPI, port: int = 0) -> Iterator[tuple[str, int]]:
    """Serve on this port, or on a free one; its host and port.

    It listens from here on: a request waits for the service to start, so nobody has to poll.
    """
    # A page that is still open must not keep a test from ending.
    config = uvicorn.Config(
        app,
        http=Connection,
        access_log=False,
        log_level="critical",
        ws="none",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    # Logged from another thread, lines would slip past pytest's capture.
    with socket.create_server(("127.0.0.1", port)) as listener, capture_logs():
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join()
