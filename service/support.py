"""What somebody who is to help must know, in one file: no image, no part, no secret.

`kizu support` puts it together from what is here and from the service, where one answers.
"""

import json
import platform
import urllib.request
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from models.bundle import MANIFEST, list_recipes, list_versions
from models.errors import KizuError
from service.doctor import Finding
from service.settings import Settings
from service.store import audit
from service.store.database import look_into_database
from service.store.tables import Base

_PATIENCE_S = 5


def gather(settings: Settings, findings: list[Finding], out: Path) -> None:
    """Write the file `out`. Raises OSError."""
    with zipfile.ZipFile(out, "x", zipfile.ZIP_DEFLATED) as archive:
        lines = [f"{one.health:8}{one.subject:10}{one.text}" for one in findings]
        archive.writestr("doctor.txt", "\n".join(lines))
        archive.writestr("settings.json", json.dumps(_shown(settings), indent=2))
        archive.writestr("versions.json", json.dumps(_versions(), indent=2))
        archive.writestr("rows.json", json.dumps(_rows(settings), indent=2))
        for name, text in _bundles(settings):
            archive.writestr(name, text)
        archive.writestr("metrics.txt", _metrics(settings))


def _shown(settings: Settings) -> dict[str, object]:
    """Without the database's password."""
    found: dict[str, object] = settings.model_dump(mode="json")
    found["database"] = make_url(settings.database_url).render_as_string(hide_password=True)
    return found


def _versions() -> dict[str, str]:
    packages = {one.name: one.version for one in metadata.distributions()}
    return {"system": platform.platform(), "python": platform.python_version(), **packages}


def _rows(settings: Settings) -> dict[str, object]:
    """How many of each kind there are, and the head of the audit log."""
    try:
        engine, age = look_into_database(settings.database_url)
    except KizuError as error:
        return {"error": str(error)}
    if engine is None:
        return {"error": "There is no database yet."}
    try:
        if age != "current":
            return {"error": f"The database is of {'an' if age == 'older' else 'a'} {age} Kizu."}
        with Session(engine) as session:
            counts: dict[str, object] = {
                table.name: session.scalar(select(func.count()).select_from(table))
                for table in Base.metadata.sorted_tables
            }
            number, digest = audit.verify(session)
            return counts | {"audit head": f"{number}:{digest}"}
    except (KizuError, SQLAlchemyError) as error:
        return {"error": str(error).splitlines()[0]}
    finally:
        engine.dispose()


def _bundles(settings: Settings) -> Iterator[tuple[str, str]]:
    for recipe in list_recipes(settings.store):
        for version in list_versions(settings.store, recipe):
            manifest = settings.store / recipe / str(version) / MANIFEST
            yield f"bundles/{recipe}/{version}.json", manifest.read_text("utf-8", "replace")


def _metrics(settings: Settings) -> str:
    scheme = "https" if settings.tls_certificate else "http"
    everywhere = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
    host = "127.0.0.1" if settings.host in everywhere else settings.host
    try:
        address = f"{scheme}://{host}:{settings.port}/metrics"
        with urllib.request.urlopen(address, timeout=_PATIENCE_S) as answer:  # noqa: S310
            text: str = answer.read().decode()
            return text
    except OSError as error:
        return f"# no service answers: {error}\n"
