"""`/v1/session`: logging in and out, and who one is."""

from typing import Annotated

import structlog
from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from starlette.responses import RedirectResponse

from service.errors import Forbidden, NotFound, NotLoggedIn, ProviderFailure
from service.gate import COOKIE, csrf
from service.identity import Identity
from service.oidc import ATTEMPT_S, Attempt, Provider
from service.routes.problems import PROBLEMS
from service.schemas import LogInRequest, SessionStatus
from service.state import CurrentState, State

log = structlog.get_logger()

ATTEMPT = "kizu_oidc"

router = APIRouter(prefix="/v1/session", tags=["access"])


@router.get("", operation_id="get_session", responses=PROBLEMS)
async def get_session(request: Request, state: CurrentState) -> SessionStatus:
    """Who asks, and whether one has to be known at all."""
    identity: Identity | None = request.state.identity
    return _status(identity, request.cookies.get(COOKIE), state)


@router.post("", operation_id="log_in", status_code=201, responses=PROBLEMS)
async def log_in(
    request: Request, response: Response, state: CurrentState, asked: LogInRequest
) -> SessionStatus:
    """Log in, by a cookie that no script can read."""
    address = request.client.host if request.client else ""
    identity, token = await state.gate.log_in(asked.name, asked.password, address)
    _keep(response, token, request, state)
    return _status(identity, token, state)


@router.delete("", operation_id="log_out", status_code=204, responses=PROBLEMS)
async def log_out(request: Request, response: Response, state: CurrentState) -> None:
    """End the session of this browser."""
    token = request.cookies.get(COOKIE)
    if token:
        await to_thread.run_sync(state.gate.log_out, token)
    response.delete_cookie(COOKIE)


@router.get(
    "/oidc", operation_id="begin_oidc", status_code=303, response_class=RedirectResponse,
    responses=PROBLEMS,
)  # fmt: skip
async def begin_oidc(request: Request, state: CurrentState) -> RedirectResponse:
    """Go to the identity provider to log in."""
    attempt = Attempt.new()
    address = await _provider(state).address(attempt)
    response = RedirectResponse(address, 303)
    response.set_cookie(
        ATTEMPT, attempt.written(), max_age=ATTEMPT_S, path="/v1/session/oidc", httponly=True,
        samesite="lax",  # strict cookies do not come along when the provider sends one back
        secure=_is_secure(request, state),
    )  # fmt: skip
    return response


@router.get(
    "/oidc/callback", operation_id="finish_oidc", status_code=303,
    response_class=RedirectResponse, responses=PROBLEMS,
)  # fmt: skip
async def finish_oidc(
    request: Request,
    state: CurrentState,
    answer: Annotated[str, Query(alias="state", max_length=200)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
) -> RedirectResponse:
    """Come back from the identity provider: to the console, logged in or told why not."""
    provider = _provider(state)
    try:
        attempt = Attempt.read(request.cookies.get(ATTEMPT, ""))
        name = await provider.name(attempt, answer, code)
        token = await to_thread.run_sync(state.gate.log_in_as, name)
    except (NotLoggedIn, Forbidden, ProviderFailure) as error:
        log.warning("log-in by the provider failed", reason=str(error))
        response = RedirectResponse(f"/?refused={error.type}", 303)
    else:
        response = RedirectResponse("/", 303)
        _keep(response, token, request, state)
    response.delete_cookie(ATTEMPT, path="/v1/session/oidc")
    return response


def _provider(state: State) -> Provider:
    if state.provider is None:
        raise NotFound("There is no identity provider.", remedy="Set KIZU_OIDC_ISSUER.")
    return state.provider


def _keep(response: Response, token: str, request: Request, state: State) -> None:
    response.set_cookie(
        COOKIE, token, max_age=int(3600 * state.settings.session_hours), httponly=True,
        samesite="strict", secure=_is_secure(request, state),
    )  # fmt: skip


def _is_secure(request: Request, state: State) -> bool:
    return request.url.scheme == "https" or state.settings.public_url.startswith("https:")


def _status(identity: Identity | None, token: str | None, state: State) -> SessionStatus:
    known = identity if identity and identity.kind != "anyone" else None
    return SessionStatus(
        closed=state.gate.closed,
        provider="/v1/session/oidc" if state.provider else None,
        name=known.name if known else None,
        role=identity.role if identity else None,
        csrf=csrf(token) if token and known and known.kind == "user" else None,
    )
