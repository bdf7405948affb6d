"""The service's own copies of the bundles that it loads: a store that is gone, or that somebody
wrote into, ends nothing that decides."""

import shutil
from pathlib import Path

import structlog

from models.bundle import Bundle, copy_bundle, open_bundle
from models.durable import make_directory
from models.errors import BundleError
from models.signature import Trust
from service.directory_lock import lock_directory
from service.errors import no_room

log = structlog.get_logger()


class Vault:
    """Bundles by their digest. Everything that leaves it is whole, and signed by who is trusted."""

    def __init__(self, root: Path, trust: Trust) -> None:
        self._root = root
        self._trust = trust

    def admit(self, bundle: Bundle) -> Bundle:
        """The copy of a bundle that was opened in a store; made where there is none.

        Raises BundleError where nobody who is trusted signed it.
        """
        self._trust.check(bundle)
        try:
            make_directory(self._root)
            with lock_directory(self._root):
                return self._copy(bundle)
        except OSError as error:
            if not no_room(error):
                raise
            log.warning("the disk is full: a bundle is used where it lies", path=str(bundle.path))
            return bundle

    def _copy(self, bundle: Bundle) -> Bundle:
        """The copy that there is, or a new one; by one at a time, or two would make the same."""
        manifest = bundle.manifest
        kept = self.find(manifest.recipe, manifest.version, bundle.digest)
        if kept:
            return kept
        path = self._path(manifest.recipe, manifest.version, bundle.digest)
        shutil.rmtree(path, ignore_errors=True)  # one that is no longer whole
        copy_bundle(bundle, path)
        return open_bundle(path)

    def find(self, recipe: str, version: int, digest: str) -> Bundle | None:
        """The copy of a bundle, where there is one that is still good."""
        path = self._path(recipe, version, digest)
        if not path.exists():
            return None
        try:
            bundle = open_bundle(path)
            self._trust.check(bundle)
        except BundleError as error:
            log.error("a copy is no longer good", path=str(path), reason=str(error))
            return None
        return bundle if bundle.digest == digest else None

    @property
    def recipes(self) -> set[str]:
        """Of which there are copies."""
        return {path.name for path in self._root.glob("*/*")}

    def keep_only(self, recipe: str, digests: set[str]) -> None:
        """Remove a recipe's other copies."""
        for path in self._root.glob(f"*/{recipe}"):
            if path.parent.name not in digests:
                shutil.rmtree(path.parent, ignore_errors=True)

    def _path(self, recipe: str, version: int, digest: str) -> Path:
        return self._root / digest / recipe / str(version)
