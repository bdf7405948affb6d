"""What takes which role, and who asks."""

from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Forbidden, NotLoggedIn
from service.gate import COOKIE, CSRF_HEADER
from service.identity import ANYONE, Identity, Role
from service.oidc import CALLBACK
from service.schemas import Desk
from service.store.audit import acts

# Where nobody comes by without being known. The rest is the console's files, and what follows.
API = ("/v1/", "/v2/", "/inspect", "/feedback")
# Whoever logs in is not yet known; whether the service is well is no secret.
PUBLIC = (
    "/v1/session", "/v1/session/oidc", CALLBACK, "/v2/health/live", "/v2/health/ready",
)  # fmt: skip
# For the API's description: who asks has been found out before.
_KEY = HTTPBearer(scheme_name="key", description="kizu key add NAME", auto_error=False)
_SESSION = APIKeyCookie(
    name=COOKIE, scheme_name="session", auto_error=False,
    description=f"Of who has logged in; what changes something shows {CSRF_HEADER} as well.",
)  # fmt: skip


class GateMiddleware:
    """Finds out who asks, before anything of what they send is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            identity = await scope["state"]["kizu"].gate.identify(request)
            path = scope["path"]
            if identity is None and path.startswith(API) and path not in PUBLIC:
                raise NotLoggedIn("Nobody known asks.", remedy="Log in, or send a key.")
            request.state.identity = identity
            with acts(identity or ANYONE):
                await self._app(scope, receive, send)
            return
        await self._app(scope, receive, send)


def needs(role: Role) -> Any:
    """A route's dependency: only who has the role, or a higher one, may."""

    async def check(
        request: Request,
        key: Annotated[Any, Security(_KEY)],
        session: Annotated[Any, Security(_SESSION)],
    ) -> None:
        identity: Identity | None = request.state.identity
        if identity is None:
            raise NotLoggedIn("Nobody known asks.", remedy="Log in, or send a key.")
        if not identity.may(role):
            who = identity.name or "Whoever is not known"
            raise Forbidden(f"This takes the role {role!r}, and {who} has {identity.role!r}.")

    check.role = role  # type: ignore[attr-defined]
    return Depends(check)


def check_desk(identity: Identity, desk: Desk) -> None:
    """Raise Forbidden where somebody would sit at the desk that settles disagreements, and may
    not."""
    if desk == "engineer" and not identity.may("engineer"):
        raise Forbidden("Disagreements are settled by engineers.")


async def _caller(request: Request) -> Identity:
    identity: Identity = request.state.identity
    return identity


Caller = Annotated[Identity, Depends(_caller)]
