"""`/v1/session`: logging in and out, and who one is."""

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from service.gate import COOKIE, csrf
from service.identity import Identity
from service.routes.problems import PROBLEMS
from service.schemas import LogInRequest, SessionStatus
from service.state import CurrentState

router = APIRouter(prefix="/v1/session", tags=["access"])


@router.get("", operation_id="get_session", responses=PROBLEMS)
async def get_session(request: Request, state: CurrentState) -> SessionStatus:
    """Who asks, and whether one has to be known at all."""
    identity: Identity | None = request.state.identity
    return _status(identity, request.cookies.get(COOKIE), closed=state.gate.closed)


@router.post("", operation_id="log_in", status_code=201, responses=PROBLEMS)
async def log_in(
    request: Request, response: Response, state: CurrentState, asked: LogInRequest
) -> SessionStatus:
    """Log in, by a cookie that no script can read."""
    address = request.client.host if request.client else ""
    identity, token = await state.gate.log_in(asked.name, asked.password, address)
    response.set_cookie(
        COOKIE, token, max_age=int(3600 * state.settings.session_hours), httponly=True,
        samesite="strict", secure=request.url.scheme == "https",
    )  # fmt: skip
    return _status(identity, token, closed=state.gate.closed)


@router.delete("", operation_id="log_out", status_code=204, responses=PROBLEMS)
async def log_out(request: Request, response: Response, state: CurrentState) -> None:
    """End the session of this browser."""
    token = request.cookies.get(COOKIE)
    if token:
        await to_thread.run_sync(state.gate.log_out, token)
    response.delete_cookie(COOKIE)


def _status(identity: Identity | None, token: str | None, *, closed: bool) -> SessionStatus:
    known = identity if identity and identity.kind != "anyone" else None
    return SessionStatus(
        closed=closed,
        name=known.name if known else None,
        role=identity.role if identity else None,
        csrf=csrf(token) if token and known and known.kind == "user" else None,
    )
