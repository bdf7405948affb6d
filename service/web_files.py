"""The operators' page: static files that run nothing and load nothing from anywhere else."""

from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    # Asked for again each time (and answered 304), so that an upgrade never mixes its files.
    "Cache-Control": "no-cache",
}

_METHODS = ("GET", "HEAD")


class WebFiles(StaticFiles):
    """Static files, each with `HEADERS`."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file at `path`."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


class WebMount(Mount):
    """Files at every address but the API's, which says itself what it does not know."""

    def __init__(self, files: WebFiles, api: tuple[str, ...]) -> None:
        super().__init__("/", files, name="web")
        self._api = api

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is for a file."""
        if scope["type"] == "http" and scope["path"].startswith(self._api):
            return Match.NONE, {}
        match, child = super().matches(scope)
        if match is Match.FULL and scope["type"] == "http" and scope["method"] not in _METHODS:
            return Match.PARTIAL, child
        return match, child
