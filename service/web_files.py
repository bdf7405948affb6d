"""The operators' page: static files that run nothing and load nothing from anywhere else."""

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:",
    "X-Content-Type-Options": "nosniff",
    # Asked for again each time (and answered 304), so that an upgrade never mixes its files.
    "Cache-Control": "no-cache",
}


class WebFiles(StaticFiles):
    """Static files, each with `HEADERS`."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file at `path`."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
