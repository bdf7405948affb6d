"""A server that verifies the webhooks that it is sent."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver:
    """With another `status` than 200 it does not take them."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self.status = 200
        self.got: list[tuple[str, Any]] = []  # id and what was sent, in the order they came
        self.refused = 0
        self.news = threading.Condition()
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}/hook"

    def start(self) -> None:
        """It listens, from now on at the same port."""
        self._server = ThreadingHTTPServer((self._host, self._port), self._handler())
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """Nobody listens."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait(self, holds: Callable[["Receiver"], bool], seconds: float = 60) -> None:
        """Until something holds."""
        with self.news:
            assert self.news.wait_for(lambda: holds(self), seconds), self.got[-20:]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                sent = Webhook(SECRET).verify(body, headers)
                with outer.news:
                    if outer.status == 200:
                        outer.got.append((self.headers["webhook-id"], sent))
                    else:
                        outer.refused += 1
                    outer.news.notify_all()
                self.send_response(outer.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
