"""The outermost layer: a request's id, size and log line, and no exception that escapes."""

import asyncio
import random
import re
import time
from dataclasses import dataclass

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import QueueFull, answer
from service.routes.access import API

log = structlog.get_logger()

_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_JSON_BYTES = 8_000_000
# What a browser may do with an answer. What is sent as an image, and opened, is nothing but one.
_SAFE = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin"))
_POLICY = b"content-security-policy"
_OF_API = b"default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"
_OF_PAGES = b"frame-ancestors 'none'"
_QUIET = ("/health/live", "/health/ready", "/metrics")


class AccessMiddleware:
    """Gives each request an id (the caller's, if it is a plain one) and answers what went wrong.

    An exception that reached the server would close the connection under the next request.
    """

    def __init__(
        self, app: ASGIApp, max_body_bytes: int, max_bodies_bytes: int, body_s: float
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._max_bodies_bytes = max_bodies_bytes
        self._body_s = body_s
        self._bodies_bytes = 0  # of all requests that are not answered yet
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
        body = _Body(receive, self._body_s)
        held = _Held()
        # A client that asked whether to send the body, and was not told to, does not: what it
        # sends next would be taken for the body.
        asks = request.headers.get("expect", "").lower() == "100-continue"

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", request_id.encode()), *_SAFE]
                if not any(name.lower() == _POLICY for name, _ in message.get("headers", [])):
                    own.append((_POLICY, _OF_API if scope["path"].startswith(API) else _OF_PAGES))
                if (asks and not body.wanted) or status == 408:
                    own.append((b"connection", b"close"))
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        try:
            await self._app(scope, self._limited(request, body.receive, held), send_with_id)
        except Exception as error:
            if status:
                raise
            response = answer(error, request)
            await response(scope, receive, send_with_id)
            if isinstance(error, QueueFull):
                self._refusals.count()
                return
        finally:
            self._bodies_bytes -= held.bytes
        if scope["path"] not in _QUIET:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round(1000 * (time.perf_counter() - started), 1),
                request_id=request_id,
            )

    def _limited(self, request: Request, receive: Receive, held: "_Held") -> Receive:
        """Raise what becomes a problem like any other, instead of reading on."""
        declared = request.headers.get("content-length", "")
        most = self._max_body_bytes
        # To read JSON takes many times its size; tensors of the Open Inference Protocol are large.
        if _is_json(request) and not request.scope["path"].startswith("/v2/"):
            most = min(most, MAX_JSON_BYTES)
        too_large = declared.isdecimal() and int(declared) > most
        total = 0

        async def limited() -> Message:
            nonlocal total
            message: Message = {} if too_large else await receive()
            size = len(message.get("body", b""))
            total += size
            held.bytes += size
            self._bodies_bytes += size
            if too_large or total > most:
                # As an HTTPException, which FastAPI lets pass where it parses a body.
                raise HTTPException(413, f"The request body is larger than {most:,} bytes.")
            if self._bodies_bytes > self._max_bodies_bytes:
                raise HTTPException(503, "Too much is being sent at once.")
            return message

        return limited


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("application/json")


@dataclass
class _Held:
    """How much of a body came."""

    bytes: int = 0


class _Body:
    """A request's body, whether anybody wanted it, and for how long it may come."""

    def __init__(self, receive: Receive, within_s: float) -> None:
        self._receive = receive
        self._within_s = within_s
        self.wanted = False
        self._until: float | None = None
        self._complete = False

    async def receive(self) -> Message:
        """Raise HTTPException where the body takes too long. Once it is here, nobody is in a hurry:
        what comes next is that the client has gone."""
        self.wanted = True
        if self._complete:
            return await self._receive()
        if self._until is None:
            self._until = asyncio.get_running_loop().time() + self._within_s
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            said = f"The body did not come within {self._within_s:g} s."
            raise HTTPException(408, said) from error
        self._complete = not message.get("more_body", False)
        return message


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
