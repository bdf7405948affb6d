"""Bundles that run in their champion's shadow: loaded, asked, and decide nothing.

Which one does is the newest row of `candidacies`. By the policy `shadow` a version that appears in
the store becomes the candidate by itself; nobody else makes it decide.
"""

import threading

import structlog
from sqlalchemy import Engine as Database
from sqlalchemy.orm import Session

from models.bundle import list_versions
from models.errors import BundleError
from service.errors import BadRequest
from service.promotions import Promotions
from service.registry import SYSTEM, Loaded, Registry
from service.store import records
from service.store.advisory_locks import AdvisoryLock
from service.store.tables import Candidacy

log = structlog.get_logger()


class Candidates:
    """Keeps the candidate of each recipe loaded."""

    def __init__(self, registry: Registry, database: Database, *, promotion: Promotions) -> None:
        self._registry = registry
        self._database = database
        self._promotion = promotion
        self._loaded: dict[str, Loaded] = {}
        self._changing = threading.Lock()  # a scan that began before a person decided ends before

    @property
    def loaded_bytes(self) -> int:
        """Size of the files of the models that are loaded."""
        return sum(one.size for one in self._loaded.values())

    def of(self, recipe: str) -> Loaded | None:
        """The candidate of a recipe; None once it decides, or where there is none."""
        loaded = self._loaded.get(recipe)
        champion = self._registry.champions.get(recipe)
        if loaded is None or champion is None or champion.bundle.digest == loaded.bundle.digest:
            return None
        return loaded

    def nominate(self, recipe: str, version: int | None, *, by: str, reason: str) -> None:
        """Let a version run in the shadow from now on, or none.

        Raises NotFound, BadRequest where it decides already, BundleRefused or DeviceError.
        """
        with self._changing:
            champion = self._registry.champion(recipe)
            if version == champion.bundle.manifest.version:
                raise BadRequest(f"Version {version} of {recipe!r} decides already.")
            loaded = self._registry.open_version(recipe, version) if version is not None else None
            self._record(recipe, loaded, by=by, reason=reason)
            self._hold(recipe, loaded)

    def scan(self) -> None:
        """Follow what was decided elsewhere, and take up versions that are new."""
        for recipe in self._registry.champions:
            with self._changing:
                try:
                    self._scan_recipe(recipe)
                except BundleError as error:
                    self._hold(recipe, None)
                    log.error("candidate refused", recipe=recipe, reason=str(error))

    def _scan_recipe(self, recipe: str) -> None:
        with Session(self._database) as session:
            wanted = records.candidacy_in_force(session, recipe)
            known = max(
                records.highest_considered(session, recipe),
                records.highest_nominated(session, recipe),
            )
        if self._promotion == "shadow":
            versions = list_versions(self._registry.store, recipe)
            for version in reversed([v for v in versions if v > known]):
                if loaded := self._registry.try_version(recipe, version):
                    since = wanted.id if wanted else 0
                    reason = "first seen in the store"
                    if self._record(recipe, loaded, by=SYSTEM, reason=reason, since=since):
                        self._hold(recipe, loaded)
                    return
        if wanted is None or wanted.bundle_version is None:
            self._hold(recipe, None)
            return
        current = self._loaded.get(recipe)
        champion = self._registry.champions[recipe].bundle.digest
        held = current.bundle.digest if current else None
        if wanted.bundle_digest not in (held, champion):
            loaded = self._registry.try_version(
                recipe, wanted.bundle_version, digest=wanted.bundle_digest
            )
            self._hold(recipe, loaded)
        elif held == champion:
            self._hold(recipe, None)  # it decides now, and is the registry's to keep

    def _record(
        self,
        recipe: str,
        loaded: Loaded | None,
        *,
        by: str,
        reason: str,
        since: int | None = None,
    ) -> bool:
        """Whether it was: not if elsewhere something was decided after row `since`."""
        with Session(self._database) as session, session.begin():
            records.write_alone(session, AdvisoryLock.CANDIDACY)
            newest = records.candidacy_in_force(session, recipe)
            if since is not None and newest is not None and newest.id > since:
                return False
            session.add(
                Candidacy(
                    created_at=records.now(),
                    recipe=recipe,
                    bundle_version=loaded.bundle.manifest.version if loaded else None,
                    bundle_digest=loaded.bundle.digest if loaded else None,
                    by=by,
                    reason=reason,
                )
            )
        return True

    def _hold(self, recipe: str, loaded: Loaded | None) -> None:
        if loaded is self._loaded.get(recipe):
            return
        others = {name: one for name, one in self._loaded.items() if name != recipe}
        self._loaded = {**others, recipe: loaded} if loaded else others
        if loaded:
            log.info("candidate runs", recipe=recipe, version=loaded.bundle.manifest.version)
