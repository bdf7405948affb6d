"""What a caller can be told: one tree, one handler, RFC 9457 problem+json.

ServiceError
- NotLoggedIn 401; Forbidden 403; TooMany 429
- BadRequest, InvalidImage, BundleRefused 422; UnsupportedMedia 415; TooLarge 413; TooSlow 408
- NotFound 404; Conflict, Superseded 409
- QueueFull, NotReady, StorageUnavailable, ProviderFailure 503
- DeadlinePassed 504; EngineFailure 500
"""

import errno
import sqlite3
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from models.errors import BundleError, DeviceError, ImageError, KizuError

log = structlog.get_logger()

_POSTGRESQL_DISK_FULL = "53100"


class ServiceError(KizuError):
    """An answer that is not a result. `type` is stable; `retryable` says whether to send again."""

    status = 500
    type = "internal"
    title = "Internal error"
    retryable = False
    retry_after_s: int | None = None


class NotLoggedIn(ServiceError):
    """Nobody known asks."""

    status, type, title = 401, "not-logged-in", "Not logged in"


class Forbidden(ServiceError):
    """Who asks may not."""

    status, type, title = 403, "forbidden", "Forbidden"


class TooMany(ServiceError):
    """More than somebody may ask for, or tries of a password."""

    status, type, title, retryable = 429, "too-many-requests", "Too many requests", True
    retry_after_s = 1


class BadRequest(ServiceError):
    """The request is understood and cannot be carried out as it is."""

    status, type, title = 422, "invalid-request", "Invalid request"


class InvalidImage(ServiceError):
    """The image cannot be read as its recipe declares."""

    status, type, title = 422, "invalid-image", "Invalid image"


class UnsupportedMedia(ServiceError):
    """The body is of a type that is not accepted."""

    status, type, title = 415, "unsupported-media-type", "Unsupported media type"


class TooSlow(ServiceError):
    """The request did not come in time."""

    status, type, title, retryable = 408, "too-slow", "Too slow", True


class TooLarge(ServiceError):
    """The request is larger than a limit."""

    status, type, title = 413, "too-large", "Too large"


class NotFound(ServiceError):
    """There is no such recipe, bundle, inspection or file."""

    status, type, title = 404, "not-found", "Not found"


class Conflict(ServiceError):
    """The same request is being carried out just now."""

    status, type, title, retryable = 409, "in-flight", "Already in flight", True
    retry_after_s = 1


class Superseded(ServiceError):
    """The request was made for a bundle that no longer decides, or a label that was replaced."""

    status, type, title = 409, "superseded", "Superseded"


class StorageUnavailable(ServiceError):
    """The database, or the object store, does not answer, or nothing can be written."""

    status, type, title, retryable = 503, "storage-unavailable", "Storage unavailable", True
    retry_after_s = 5


class QueueFull(ServiceError):
    """The device has more waiting than it may."""

    status, type, title, retryable = 503, "queue-full", "Queue full", True
    retry_after_s = 1


class NotReady(ServiceError):
    """No bundle is loaded yet, or the service is closing down."""

    status, type, title, retryable = 503, "not-ready", "Not ready", True
    retry_after_s = 5


class ProviderFailure(ServiceError):
    """The identity provider does not answer, or not as one."""

    status, type, title, retryable = 503, "provider-failure", "Identity provider failure", True
    retry_after_s = 5


class DeadlinePassed(ServiceError):
    """The verdict did not come in time."""

    status, type, title, retryable = 504, "deadline-passed", "Deadline passed", True


class BundleRefused(ServiceError):
    """A bundle that does not verify, or that the device disagrees with."""

    status, type, title = 422, "bundle-refused", "Bundle refused"


class EngineFailure(ServiceError):
    """The device failed on this image, or gave numbers that are none."""

    status, type, title, retryable = 500, "engine-failure", "Engine failure", True


def problem(error: BaseException, request: Request) -> dict[str, Any]:
    """The problem+json document of an error; it is counted, and logged if nobody foresaw it."""
    shown = as_service_error(error)
    request_id = getattr(request.state, "request_id", "")
    if type(shown) is ServiceError:
        log.error("unforeseen error", request_id=request_id, exc_info=error)
    state = getattr(request.state, "kizu", None)
    if state is not None:
        state.metrics.problems.labels(shown.type).inc()
    # Where the Open Inference Protocol's clients look for it.
    v2 = {"error": str(shown)} if request.scope["path"].startswith("/v2") else {}
    return v2 | {
        "type": f"urn:kizu:problem:{shown.type}",
        "title": shown.title,
        "status": shown.status,
        "detail": str(shown),
        "request_id": request_id,
        "retryable": shown.retryable,
        # Said outright, so that a PLC's adapter never takes a missing verdict for a good part.
        "verdict": "error",
    }


def answer(error: BaseException, request: Request) -> JSONResponse:
    """The same as a response."""
    shown = as_service_error(error)
    headers = {"Retry-After": str(shown.retry_after_s)} if shown.retry_after_s else {}
    if shown.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(
        problem(error, request),
        status_code=shown.status,
        headers=headers,
        media_type="application/problem+json",
    )


def install_handlers(app: FastAPI) -> None:
    """Answer every error as problem+json; what is not foreseen is logged and says nothing."""

    async def kizu(request: Request, error: Exception) -> JSONResponse:
        return answer(error, request)

    async def validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        )
        return answer(BadRequest(f"{wrong}."), request)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        found = answer(_from_status(error), request)
        if error.status_code == 405:
            found.headers["Allow"] = ", ".join(_methods(app, request))
        return found

    app.add_exception_handler(KizuError, kizu)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)


def _methods(app: FastAPI, request: Request) -> list[str]:
    """What can be done at an address, by all its routes: the one that refused knows its own."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in app.routes
        )
    ]


def as_service_error(error: BaseException) -> ServiceError:
    """Any error as one that a caller may see; of an unforeseen one nothing is told."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, ImageError):
        return InvalidImage(error.message, remedy=error.remedy)
    if isinstance(error, BundleError | DeviceError):
        return BundleRefused(error.message, remedy=error.remedy)
    if no_room(error):
        return StorageUnavailable(
            "The disk is full; nothing was stored.",
            remedy="Free some space. A part that was to be inspected counts as not inspected.",
        )
    if isinstance(error, OperationalError | InterfaceError | PoolTimeoutError):
        return StorageUnavailable(
            "The result could not be stored.", remedy="Treat the part as not inspected."
        )
    return ServiceError("Something failed inside; the log has the details.")


def no_room(error: BaseException) -> bool:
    """Whether a file, SQLite or PostgreSQL complains that the disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    driver = error.orig if isinstance(error, DBAPIError) else error
    return (
        getattr(driver, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        or getattr(driver, "sqlstate", None) == _POSTGRESQL_DISK_FULL
    )


def _from_status(error: HTTPException) -> ServiceError:
    shown: ServiceError
    if error.status_code == 413:
        shown = TooLarge(error.detail)
    elif error.status_code == 408:
        shown = TooSlow(error.detail)
    elif error.status_code == 503:
        shown = QueueFull(error.detail)
    elif error.status_code == 404:
        shown = NotFound("There is nothing at this address.", remedy="See /docs.")
    else:
        shown = BadRequest(f"{error.detail}.")
    if error.status_code != 400:  # what cannot be read is a 422, like what can and is wrong
        shown.status = error.status_code
    return shown
