"""The outermost layer: a request's id, size and log line, and no exception that escapes."""

import random
import re
import time

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import QueueFull, answer

log = structlog.get_logger()

_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = ("/health/live", "/health/ready", "/metrics")


class AccessMiddleware:
    """Gives each request an id (the caller's, if it is a plain one) and answers what went wrong.

    An exception that reached the server would close the connection under the next request.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._refusals = _Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        asked = request.headers.get("x-request-id", "")
        request_id = asked if _GOOD_ID.fullmatch(asked) else f"{random.getrandbits(128):032x}"
        request.state.request_id = request_id
        started = time.perf_counter()
        status = 0
        body = _Body(receive)
        # A client that asked whether to send the body, and was not told to, does not: what it
        # sends next would be taken for the body.
        asks = request.headers.get("expect", "").lower() == "100-continue"

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", request_id.encode())]
                if asks and not body.wanted:
                    own.append((b"connection", b"close"))
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        try:
            await self._app(scope, self._limited(request, body.receive), send_with_id)
        except Exception as error:
            if status:
                raise
            response = answer(error, request)
            await response(scope, receive, send_with_id)
            if isinstance(error, QueueFull):
                self._refusals.count()
                return
        if scope["path"] not in _QUIET:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round(1000 * (time.perf_counter() - started), 1),
                request_id=request_id,
            )

    def _limited(self, request: Request, receive: Receive) -> Receive:
        """Raise what becomes a problem like any other, instead of reading on."""
        declared = request.headers.get("content-length", "")
        too_large = declared.isdecimal() and int(declared) > self._max_body_bytes
        total = 0

        async def limited() -> Message:
            nonlocal total
            message: Message = {} if too_large else await receive()
            total += len(message.get("body", b""))
            if too_large or total > self._max_body_bytes:
                # As an HTTPException, which FastAPI lets pass where it parses a body.
                raise HTTPException(
                    413, f"The request body is larger than {self._max_body_bytes:,} bytes."
                )
            return message

        return limited


class _Body:
    """A request's body, and whether anybody wanted it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.wanted = False

    async def receive(self) -> Message:
        self.wanted = True
        return await self._receive()


class _Refusals:
    """Of images that came where there was no room: a line a second at most, whatever comes."""

    def __init__(self) -> None:
        self._number = 0
        self._silent_until = 0.0

    def count(self) -> None:
        self._number += 1
        now = time.monotonic()
        if now >= self._silent_until:
            log.warning("images refused", number=self._number)
            self._number, self._silent_until = 0, now + 1
