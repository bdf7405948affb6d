"""Bundles that several services share: an object store has them all, each service a copy.

There they lie as in a store, `<recipe>/<version>/<file>`, the manifest last: once it is there, all
is. What is brought is verified before it gets its name here.
"""

import re
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from models.bundle import (
    FILES,
    MANIFEST,
    RECIPE_NAME,
    SIGNATURE,
    Bundle,
    list_recipes,
    list_versions,
    open_bundle,
    read_plain,
)
from models.durable import make_directory, rename_directory, sync_directory, write_file
from models.errors import BundleError
from service.errors import StorageUnavailable

if TYPE_CHECKING:
    from service.store.objects import ObjectStore  # only where there is one, its package is

log = structlog.get_logger()

_EVERY_S = 10.0
_PATIENCE_S = 60.0
_MANIFEST = re.compile(rf"({RECIPE_NAME.pattern})/([1-9][0-9]*)/{re.escape(MANIFEST)}")


class Mirror:
    """Brings bundles from an object store to a store of this computer, and the other way."""

    def __init__(self, objects: "ObjectStore", store: Path) -> None:
        self._objects = objects
        self._store = store
        self._refused: dict[tuple[str, float], str] = {}
        self._agreed: set[tuple[str, float]] = set()
        self._unsent: set[str] = set()
        self._away = False
        self._busy = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def problems(self) -> list[str]:
        """What people should know of it."""
        away = ["Bundles are not exchanged; the log says why."] if self._away else []
        return [*away, *self._refused.values()]

    def start(self, *, sends: bool) -> None:
        """Once now, then again and again, bring what is new; where a training writes bundles, send
        them, too."""
        self.exchange(sends=sends)
        self._thread = threading.Thread(
            target=self._loop, args=(sends,), name="kizu-mirror", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop after what is under way."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def exchange(self, *, sends: bool) -> None:
        """As far as the object store answers: what is here serves on."""
        try:
            self.fetch()
            if sends:
                self.send_all()
        except (StorageUnavailable, OSError) as error:
            if not self._away:
                log.error("bundles are not exchanged", error=str(error))
            self._away = True
        else:
            self._away = False

    def fetch(self) -> None:
        """Bring every bundle that is not here. Raises StorageUnavailable; one that is not whole, or
        that is another one here, is a problem."""
        with self._busy:
            there = [
                (found[1], found[2], (one.name, one.written_at))
                for one in self._objects.all("")
                if (found := _MANIFEST.fullmatch(one.name))
            ]
            known = {key for _, _, key in there}
            self._refused = {key: why for key, why in self._refused.items() if key in known}
            for recipe, version, key in there:
                if key not in self._agreed and key not in self._refused:
                    self._look_at(recipe, version, key)

    def send(self, bundle: Bundle) -> bool:
        """Let the others have it; whether they had it not. Raises BundleError where it is another
        one there; StorageUnavailable."""
        manifest = read_plain(bundle.path / MANIFEST)
        place = f"{bundle.manifest.recipe}/{bundle.manifest.version}"
        there = self._objects.get(f"{place}/{MANIFEST}")
        if there is not None:
            if there != manifest:
                raise BundleError(
                    f"Version {bundle.manifest.version} of {bundle.manifest.recipe!r} is another "
                    "one in the object store.",
                    remedy="Train it again where the others are, so that it gets a number of its "
                    "own.",
                )
            return False
        files = {name: bundle.read(name) for name in FILES}
        if (bundle.path / SIGNATURE).exists():
            files[SIGNATURE] = read_plain(bundle.path / SIGNATURE)
        for name, data in (files | {MANIFEST: manifest}).items():
            self._objects.put(f"{place}/{name}", data, patience_s=_PATIENCE_S)
        log.info("bundle sent", recipe=bundle.manifest.recipe, version=bundle.manifest.version)
        return True

    def send_all(self, only: str | None = None) -> None:
        """Every one, or those of a recipe, that is here and whole. Raises StorageUnavailable."""
        for recipe in [only] if only else list_recipes(self._store):
            for version in list_versions(self._store, recipe):
                name = f"{recipe}/{version}/{MANIFEST}"
                there = any(key[0] == name for key in (*self._agreed, *self._refused))
                if there or name in self._unsent:
                    continue
                try:
                    self.send(open_bundle(self._store / recipe / str(version)))
                except BundleError as error:
                    self._unsent.add(name)
                    log.error("bundle not sent", recipe=recipe, version=version, reason=str(error))

    def _look_at(self, recipe: str, version: str, key: tuple[str, float]) -> None:
        here = self._store / recipe / version
        try:
            if not (here / MANIFEST).exists():
                self._bring(recipe, version, here)
            elif self._objects.get(f"{recipe}/{version}/{MANIFEST}") != read_plain(here / MANIFEST):
                raise BundleError(
                    f"Version {version} of {recipe!r} is another one here than in the object store."
                )
        except BundleError as error:
            log.error("bundle not brought", recipe=recipe, version=version, reason=str(error))
            self._refused[key] = str(error).replace(f"{self._store}/", "")
        else:
            self._agreed.add(key)

    def _bring(self, recipe: str, version: str, here: Path) -> None:
        make_directory(here.parent)
        with tempfile.TemporaryDirectory(dir=self._store, prefix=".writing-") as place:
            path = Path(place) / recipe / version
            make_directory(path)
            for name in (*FILES, SIGNATURE, MANIFEST):
                data = self._objects.get(f"{recipe}/{version}/{name}", patience_s=_PATIENCE_S)
                if data is not None:
                    write_file(path / name, data)
            open_bundle(path)
            sync_directory(path)
            try:
                rename_directory(path, here)
            except FileExistsError:
                return  # another process with the same store brought it
        log.info("bundle brought", recipe=recipe, version=version)

    def _loop(self, sends: bool) -> None:
        while not self._stop.wait(_EVERY_S):
            self.exchange(sends=sends)
