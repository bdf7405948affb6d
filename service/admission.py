"""Refusing images that there is no room for before anything else is done with them."""

from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send


class AdmissionMiddleware:
    """Asks for room before a request to one of `paths` is read or even understood.

    Where ten times as much comes as can be inspected, refusing must cost next to nothing.
    """

    def __init__(self, app: ASGIApp, paths: tuple[str, ...]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in self._paths and scope["method"] == "POST":
            scope["state"]["kizu"].inspector.check_room(_deadline(scope["query_string"]))
        await self._app(scope, receive, send)


def _deadline(query: bytes) -> int | None:
    """Milliseconds, where they are given; what is wrong with them is said by who reads them."""
    if b"deadline_ms" not in query:
        return None
    given = parse_qs(query.decode("latin-1")).get("deadline_ms", [""])[-1]
    return int(given) if given.isascii() and given.isdecimal() and len(given) < 10 else None
