"""A whole recipe in one file: to keep it, or to move it to another computer.

A zip archive of `kizu-backup.json`, `bundles/<version>/<file>`, `rows/<table>.jsonl` and
`blobs/<sha256>`. What is restored is verified by its hashes first, and added to what is there: rows
that are there already stay, so that it can be done again after it was interrupted.
"""

import hashlib
import itertools
import json
import os
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import DateTime, Engine, Table, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models.bundle import (
    FILES,
    MANIFEST,
    SIGNATURE,
    Bundle,
    check_recipe_name,
    copy_bundle,
    list_versions,
    look_into_bundle,
    open_bundle,
)
from models.durable import make_directory, sync_directory, write_file
from models.errors import KizuError
from service.directory_lock import lock_directory
from service.store import audit, records
from service.store.advisory_locks import AdvisoryLock
from service.store.blobs import Blobs
from service.store.tables import Base

FORMAT = 1
HEAD = "kizu-backup.json"

# In the order in which they refer to each other.
_TABLES: tuple[Table, ...] = tuple(
    Base.metadata.tables[name]
    for name in (
        "recipe_revisions", "inspections", "feedback", "review_items", "shadow_results",
        "threshold_revisions", "promotions", "candidacies", "trainings",
    )
)  # fmt: skip
# Numbers that the other database counts by itself.
_COUNTED = {"feedback": "number", **dict.fromkeys(
    ("recipe_revisions", "threshold_revisions", "promotions", "candidacies"), "id"
)}  # fmt: skip
_FILES_OF = ("image_sha256", "heatmap_sha256", "mask_sha256", "report_sha256")
_PAGE = 500
_AT_ONCE = 8  # files that are written

Progress = Callable[[str], None]


class BackupError(KizuError):
    """A backup that cannot be written, or is not whole."""


def back_up(
    database: Engine, blobs: Blobs, store: Path, recipe: str, out: Path,
    progress: Progress = lambda text: None,
) -> int:  # fmt: skip
    """Write all there is of a recipe to the file `out`, whole or not at all.

    Gives how many images and heatmaps are no longer kept, and so are not in it. Raises BackupError.
    """
    check_recipe_name(recipe)
    if not list_versions(store, recipe):
        raise BackupError(f"There is no recipe {recipe!r} in {store}.")
    if out.exists():
        raise BackupError(f"{out} exists already.", remedy="Name another file.")
    make_directory(out.parent)
    unfinished = out.with_name(f".{out.name}.part")
    try:
        with unfinished.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(HEAD, json.dumps({"format": FORMAT, "recipe": recipe}))
                needed = _add_rows(archive, database, recipe, progress)
                # After the rows: whatever they say decides is in the store by now.
                for version in list_versions(store, recipe):
                    progress(f"version {version}")
                    _add_bundle(archive, open_bundle(store / recipe / str(version)))
                progress(f"{len(needed)} files")
                missing = 0
                for sha256 in sorted(needed):
                    data = blobs.get(sha256)
                    if data is None:  # what retention removed is not there to be kept
                        missing += 1
                    else:
                        archive.writestr(f"blobs/{sha256}", data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(out)
        sync_directory(out.parent)
    finally:
        unfinished.unlink(missing_ok=True)
    return missing


def restore(
    database: Engine, blobs: Blobs, store: Path, file: Path,
    progress: Progress = lambda text: None,
) -> str:  # fmt: skip
    """Add a backup's recipe to what is here, and return its name. Raises BackupError.

    Everything is verified before anything is changed. The audit log says who did it.
    """
    try:
        with file.open("rb") as opened, zipfile.ZipFile(opened) as archive:
            recipe = _check_head(archive, file)
            _check_names(archive)
            opened.seek(0)
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            with _place_of_work(store) as place:
                bundles = _check_bundles(archive, recipe, place, store)
                progress(f"{len(bundles)} versions")
                counts = [sum(1 for _ in _read_rows(archive, table)) for table in _TABLES]
                _check_blobs(archive)
                _put_blobs(archive, blobs)
                progress(f"{sum(counts)} rows")
                versions = [bundle.manifest.version for bundle in bundles]
                said = {"file": file.name, "sha256": digest, "versions": versions}
                _insert(database, archive, recipe, said)
                # Last: a service that runs here must find who decided before it finds what.
                for bundle in bundles:
                    copy_bundle(bundle, store / recipe / bundle.path.name)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise BackupError(f"{file} is not a whole backup: {error}.") from error
    except IntegrityError as error:
        raise BackupError(
            f"{file} does not fit to what is here: {error.orig}.",
            remedy="Restore it into an empty database.",
        ) from error
    return recipe


def _add_bundle(archive: zipfile.ZipFile, bundle: Bundle) -> None:
    for name in (*FILES, MANIFEST, SIGNATURE):
        if (bundle.path / name).exists():
            archive.write(bundle.path / name, f"bundles/{bundle.manifest.version}/{name}")


def _add_rows(
    archive: zipfile.ZipFile, database: Engine, recipe: str, progress: Progress
) -> set[str]:
    """Every row of the recipe, all of one moment: cameras and operators go on. Gives the files
    that the rows name."""
    needed: set[str] = set()
    # PostgreSQL takes each query's moment by default, and so does Python's SQLite without BEGIN.
    sqlite = database.dialect.name == "sqlite"
    options = {} if sqlite else {"isolation_level": "REPEATABLE READ"}
    with (
        database.connect().execution_options(**options) as connection,
        Session(connection) as session,
    ):
        if sqlite:
            connection.exec_driver_sql("BEGIN")
        for table in _TABLES:
            with archive.open(f"rows/{table.name}.jsonl", "w", force_zip64=True) as lines:
                count = 0
                for row in session.execute(
                    _of_recipe(table, recipe), execution_options={"yield_per": _PAGE}
                ).mappings():
                    lines.write(json.dumps({k: _plain(v) for k, v in row.items()}).encode() + b"\n")
                    count += 1
                    needed |= {row[name] for name in _FILES_OF if row.get(name)}
            progress(f"{count} {table.name.replace('_', ' ')}")
    return needed


def _of_recipe(table: Table, recipe: str) -> Any:
    query = select(table).order_by(*table.primary_key.columns)
    if table.name == "inspections":
        # In the order in which they were entered: the other computer numbers them anew.
        columns = [column for column in table.c if column is not table.c.number]
        order = table.c.number.nulls_first(), table.c.created_at, table.c.id
        query = select(*columns).order_by(*order)
    if "recipe" in table.c:
        return query.where(table.c.recipe == recipe)
    inspections = Base.metadata.tables["inspections"]
    return query.where(
        table.c.inspection_id.in_(select(inspections.c.id).where(inspections.c.recipe == recipe))
    )


def _check_head(archive: zipfile.ZipFile, file: Path) -> str:
    head = json.loads(archive.read(HEAD))
    if head.get("format") != FORMAT:
        raise BackupError(
            f"{file} is a backup of the format {head.get('format')}; this is Kizu's {FORMAT}.",
            remedy="Restore it with the version of Kizu that wrote it.",
        )
    recipe = str(head["recipe"])
    check_recipe_name(recipe)
    return recipe


def _check_names(archive: zipfile.ZipFile) -> None:
    """Nothing is in it that no backup writes, least of all what would lie elsewhere."""
    tables = "|".join(table.name for table in _TABLES)
    files = "|".join(re.escape(name) for name in (*FILES, MANIFEST, SIGNATURE))
    known = re.compile(
        rf"{re.escape(HEAD)}|bundles/[1-9][0-9]*/({files})|rows/({tables})\.jsonl|blobs/[0-9a-f]{{64}}"
    )
    for name in archive.namelist():
        if not known.fullmatch(name):
            raise BackupError(f"{name!r} belongs to no backup.", remedy="Copy the backup again.")


def _check_bundles(archive: zipfile.ZipFile, recipe: str, place: Path, store: Path) -> list[Bundle]:
    """The backup's bundles, unpacked beside the store and verified; those that are new here."""
    fresh = []
    numbers = sorted({name.split("/")[1] for name in _under(archive, "bundles/")}, key=int)
    for number in numbers:
        folder = place / recipe / number
        folder.mkdir(parents=True)
        for name in _under(archive, f"bundles/{number}/"):
            write_file(folder / name.rpartition("/")[2], archive.read(name))
        bundle = open_bundle(folder)
        here = store / recipe / number
        if not here.exists():
            fresh.append(bundle)
        elif look_into_bundle(here).digest != bundle.digest:
            raise BackupError(
                f"Version {number} of {recipe!r} is another one here.",
                remedy="Move one of them out of the store; versions are never replaced.",
            )
    return fresh


def _check_blobs(archive: zipfile.ZipFile) -> None:
    for name in _under(archive, "blobs/"):
        if hashlib.sha256(archive.read(name)).hexdigest() != name.removeprefix("blobs/"):
            raise BackupError(f"{name} differs from its hash.", remedy="Copy the backup again.")


def _put_blobs(archive: zipfile.ZipFile, blobs: Blobs) -> None:
    """Several at once: each waits for the disk, and waiting together takes no longer."""
    names = iter(_under(archive, "blobs/"))
    with ThreadPoolExecutor(_AT_ONCE) as writers:
        while batch := [archive.read(name) for name in itertools.islice(names, _AT_ONCE)]:
            list(writers.map(blobs.put, batch))


def _read_rows(archive: zipfile.ZipFile, table: Table) -> Iterator[dict[str, Any]]:
    with archive.open(f"rows/{table.name}.jsonl") as lines:
        for line in lines:
            row = json.loads(line)
            yield {name: _typed(table, name, value) for name, value in row.items()}


def _insert(database: Engine, archive: zipfile.ZipFile, recipe: str, said: dict[str, Any]) -> None:
    """All of it or nothing, and who did it. Rows that count by themselves are recognised by all
    that they say."""
    with Session(database) as session, session.begin():
        records.write_alone(session, AdvisoryLock.RESTORE)
        added: Counter[str] = Counter()
        revisions: dict[int, int] = {}
        numbers = itertools.count(records.next_number(session))
        for table in _TABLES:
            counted = _COUNTED.get(table.name)
            known = _known(session, table, counted)
            rows = _read_rows(archive, table)
            while page := list(itertools.islice(rows, _PAGE)):
                fresh = []
                for row in page:
                    if table.name == "inspections" and row["recipe_revision"]:
                        row["recipe_revision"] = revisions[row["recipe_revision"]]
                    old = row.pop(counted) if counted else None
                    identity = _identity(table, row, counted)
                    if identity not in known and counted:
                        new = table.insert().values(**row).returning(table.c[counted])
                        known[identity] = session.scalar(new)
                        added[table.name] += 1
                    elif identity not in known:
                        known[identity] = None
                        number = {"number": next(numbers)} if table.name == "inspections" else {}
                        fresh.append(row | number)
                    if table.name == "recipe_revisions" and old is not None:
                        revisions[old] = known[identity]
                if fresh:
                    session.execute(table.insert(), fresh)
                    added[table.name] += len(fresh)
        audit.note(session, "backup: restore", recipe, said | {"rows": added})


def _known(session: Session, table: Table, counted: str | None) -> dict[str, Any]:
    """What is here already, by what it is recognised by; with its number, where it has one."""
    columns = table.c if counted else [table.c.id] if "id" in table.c else table.primary_key.columns
    return {
        _identity(table, dict(row), counted): row[counted] if counted else None
        for row in session.execute(select(*columns)).mappings()
    }


def _identity(table: Table, row: dict[str, Any], counted: str | None) -> str:
    if "id" in table.c and counted != "id":
        return str(row["id"])
    if counted:
        return json.dumps({k: _plain(v) for k, v in row.items() if k != counted}, sort_keys=True)
    return json.dumps([row[column.name] for column in table.primary_key.columns])


def _under(archive: zipfile.ZipFile, prefix: str) -> list[str]:
    return [
        name for name in archive.namelist() if name.startswith(prefix) and not name.endswith("/")
    ]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _typed(table: Table, name: str, value: Any) -> Any:
    if value is None:
        return None
    kind = table.c[name].type
    if isinstance(getattr(kind, "impl_instance", kind), DateTime):
        return datetime.fromisoformat(value)
    return value


@contextmanager
def _place_of_work(store: Path) -> Iterator[Path]:
    """A folder in the store, which knows no such recipe. One restore at a time: what is there
    already is of one that was killed."""
    make_directory(store)
    place = store / ".restoring"
    with lock_directory(store):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
