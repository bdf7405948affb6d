"""The bundles that decide: found in the store, verified, warmed, then swapped in whole.

Which bundle of a recipe decides is the newest row of `promotions`. A request keeps the bundle
that it started with; a replaced one is freed with its last request. Of more models than the
budget allows for, those are let go that were asked for least recently; they are loaded again,
beside what is being served, when a request asks for them.
"""

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from sqlalchemy import Engine as Database
from sqlalchemy.orm import Session

from models.bundle import (
    GOLDEN,
    MODEL,
    Bundle,
    Manifest,
    list_recipes,
    list_versions,
    open_bundle,
)
from models.errors import BundleError
from models.golden import Golden
from service.engine import Engine
from service.errors import BadRequest, BundleRefused, NotFound, NotReady
from service.promotions import Promotions
from service.store import records
from service.store.advisory_locks import AdvisoryLock
from service.store.tables import Promotion
from service.vault import Vault

log = structlog.get_logger()

SYSTEM = "kizu"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A bundle and the engine that runs it. Compared by identity: it keys a batch.

    `size` is that of the model's file, in bytes. By `known`, one golden image, its device is
    watched: kept, since the store may be away when the device fails.
    """

    bundle: Bundle
    engine: Engine
    size: int
    known: Golden


@dataclass(frozen=True)
class Champion:
    """The bundle that decides, the device that runs it, and its engine while that is loaded.

    `used` is larger, the later it was asked for.
    """

    bundle: Bundle
    device: str
    loaded: Loaded | None
    used: int


class Registry:
    """Keeps one champion for each recipe in the store, loaded as far as `model_bytes` allows.

    A model counts by its file's size; the one that was asked for last is always loaded.
    """

    def __init__(
        self,
        store: Path,
        database: Database,
        open_engine: Callable[[Bundle], Engine],
        vault: Vault,
        *,
        promotion: Promotions,
        model_bytes: int | None = None,
    ) -> None:
        self.store = store
        self._database = database
        self._open_engine = open_engine
        self._vault = vault
        self._promotion = promotion
        self._model_bytes = model_bytes
        self._champions: dict[str, Champion] = {}
        self._uses = itertools.count()
        self._changing = threading.Lock()  # of champions, held for no longer than that
        self._loading = threading.Lock()
        self._refused: dict[Path, tuple[object, str]] = {}
        self._scanning = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def champions(self) -> dict[str, Champion]:
        """The champion of each recipe."""
        return dict(self._champions)

    @property
    def loaded(self) -> list[Loaded]:
        """The models that are loaded."""
        return [one.loaded for one in self._champions.values() if one.loaded]

    @property
    def manifests(self) -> dict[str, Manifest]:
        """What is known of the bundle that decides, by recipe."""
        return {recipe: one.bundle.manifest for recipe, one in self._champions.items()}

    @property
    def loaded_bytes(self) -> int:
        """Size of the files of the models that are loaded."""
        return sum(one.size for one in self.loaded)

    @property
    def problems(self) -> list[str]:
        """Why bundles that lie in the store are not served."""
        return [message for _, message in self._refused.values()]

    def ready(self, recipe: str | None) -> Loaded | None:
        """The champion of a recipe with its engine, at once; None where it must be loaded first.

        Raises what `champion` does.
        """
        with self._changing:
            champion = self.champion(recipe)
            self._put(replace(champion, used=next(self._uses)))
        return champion.loaded

    def load(self, recipe: str | None) -> Loaded:
        """The same, loaded where it was not. Raises what `champion` does; NotReady if it cannot."""
        with self._loading:
            loaded = self.ready(recipe)
            while loaded is None:
                bundle = self.champion(recipe).bundle
                try:
                    loaded = self._open(bundle)
                except BundleError as error:
                    raise NotReady(self._shown(error), remedy=error.remedy) from error
                self._hold(loaded, only_of=bundle)
                loaded = self.ready(recipe)
        return loaded

    def champion(self, recipe: str | None) -> Champion:
        """The champion of a recipe; of the only one where none is named.

        Raises NotFound, NotReady while nothing is loaded, or BadRequest where one must be named.
        """
        champions = self._champions
        if recipe is None:
            if len(champions) == 1:
                return next(iter(champions.values()))
            if champions:
                raise BadRequest(
                    "There are several recipes and the request names none.",
                    remedy=f"Add ?recipe= with one of {', '.join(sorted(champions))}.",
                )
        elif recipe in champions:
            return champions[recipe]
        if not champions:
            raise NotReady(
                "No bundle is loaded.", remedy="Fit one into the store with `kizu-train fit`."
            )
        raise NotFound(
            f"There is no recipe {recipe!r}.", remedy=f"Use one of {', '.join(sorted(champions))}."
        )

    def scan(self) -> None:
        """Look through the store once: load what is new, promote it where the policy says so."""
        with self._scanning:
            self._refused = {path: why for path, why in self._refused.items() if path.exists()}
            for recipe in self._recipes():
                self._scan_recipe(recipe)

    def promote(
        self, recipe: str, version: int, *, by: str, reason: str, loaded: Loaded | None = None
    ) -> None:
        """Let a version decide from now on; at once, where it is `loaded` already.

        Raises NotFound, BundleRefused or DeviceError.
        """
        with self._scanning:
            if loaded is None or loaded.bundle.manifest.version != version:
                loaded = self.open_version(recipe, version)
            self._decide(loaded, by=by, reason=reason)
            self._forget(self._path(recipe, version))

    def open_version(self, recipe: str, version: int) -> Loaded:
        """Verify and load a version. Raises NotFound, BundleRefused or DeviceError."""
        if version not in list_versions(self.store, recipe):
            raise NotFound(f"The store has no version {version} of {recipe!r}.")
        try:
            return self._load(recipe, version)
        except BundleError as error:
            raise BundleRefused(self._shown(error), remedy=error.remedy) from error

    def problem(self, recipe: str, version: int) -> str | None:
        """Why a version is not served, where it was tried."""
        refused = self._refused.get(self._path(recipe, version))
        return refused[1] if refused else None

    def start(self, every_s: float, then: Callable[[], None] = lambda: None) -> None:
        """Scan now and, on a thread, again and again; `then` follows each time."""
        self._prune()
        self.scan()
        then()
        self._thread = threading.Thread(
            target=self._watch, args=(every_s, then), name="kizu-store", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _prune(self) -> None:
        """Remove copies of what neither decides nor is a candidate. Only at the start: while it
        runs, any that was loaded may come to decide again."""
        with Session(self._database) as session:
            for recipe in self._vault.recipes:
                used = (
                    records.promotion_in_force(session, recipe),
                    records.candidacy_in_force(session, recipe),
                )
                digests = {one.bundle_digest for one in used if one and one.bundle_digest}
                self._vault.keep_only(recipe, digests)

    def _watch(self, every_s: float, then: Callable[[], None]) -> None:
        while not self._stop.wait(every_s):
            try:
                self.scan()
                then()
            except Exception as error:  # noqa: BLE001 - a lost database must not end the watch
                log.error("the store could not be looked through", error=str(error))

    def _recipes(self) -> list[str]:
        """Those of the store; also those that were lost from it. One whose folder was taken out
        while others stayed was meant to go."""
        found = list_recipes(self.store)
        lost = [one for one in self._vault.recipes if not found or (self.store / one).exists()]
        return sorted({*found, *lost})

    def _scan_recipe(self, recipe: str) -> None:
        with Session(self._database) as session:
            promoted = records.promotion_in_force(session, recipe)
            considered = records.highest_considered(session, recipe)
        versions = list_versions(self.store, recipe)
        fresh = [v for v in versions if v > considered] if self._promotion == "newest" else []
        # A recipe's first bundle always decides, or it could not be served at all.
        for version in reversed(fresh if promoted else versions):
            loaded = self.try_version(recipe, version)
            if loaded:
                since = promoted.id if promoted else 0
                if not self._decide(
                    loaded, by=SYSTEM, reason="first seen in the store", since=since
                ):
                    self._scan_recipe(recipe)  # to follow what was decided instead
                return
        if promoted and not self._is_champion(promoted):
            loaded = self.try_version(
                recipe, promoted.bundle_version, digest=promoted.bundle_digest
            ) or self._copied(promoted)
            if loaded:
                self._swap_in(loaded)

    def _copied(self, promoted: Promotion) -> Loaded | None:
        bundle = self._vault.find(promoted.recipe, promoted.bundle_version, promoted.bundle_digest)
        if bundle:
            log.warning("a copy decides", recipe=promoted.recipe, version=promoted.bundle_version)
        return self._open(bundle) if bundle else None

    def _is_champion(self, promoted: Promotion) -> bool:
        current = self._champions.get(promoted.recipe)
        return current is not None and current.bundle.digest == promoted.bundle_digest

    def try_version(self, recipe: str, version: int, *, digest: str | None = None) -> Loaded | None:
        """Load a version; one that is refused is not tried again before its files change.

        A device that does not run is no bundle's fault: DeviceError goes on to the caller.
        """
        path = self._path(recipe, version)
        signature = _signature(path)
        if path in self._refused and self._refused[path][0] == signature:
            return None
        try:
            loaded = self._load(recipe, version)
            if digest and loaded.bundle.digest != digest:
                raise BundleError(f"{path} is not the bundle that was promoted: its hash differs.")
        except BundleError as error:
            log.error("bundle refused", path=str(path), reason=str(error))
            self._refused = {**self._refused, path: (signature, self._shown(error))}
            return None
        self._forget(path)
        return loaded

    def _load(self, recipe: str, version: int) -> Loaded:
        return self._open(self._vault.admit(open_bundle(self._path(recipe, version))))

    def _open(self, bundle: Bundle) -> Loaded:
        engine = self._open_engine(bundle)
        try:
            size = (bundle.path / MODEL).stat().st_size
        except OSError as error:
            raise BundleError(f"{bundle.path} is gone: {error.strerror}.") from error
        known = Golden.from_bytes(bundle.read(GOLDEN)).first
        return Loaded(bundle, engine, size, known)

    def _path(self, recipe: str, version: int) -> Path:
        return self.store / recipe / str(version)

    def _shown(self, error: BundleError) -> str:
        """The message without the place of the store, which is nobody's business."""
        return str(error).replace(f"{self.store}/", "")

    def _forget(self, path: Path) -> None:
        self._refused = {other: why for other, why in self._refused.items() if other != path}

    def _decide(self, loaded: Loaded, *, by: str, reason: str, since: int | None = None) -> bool:
        """Record a promotion and swap it in; whether it decides now: not if another one came after
        row `since`."""
        manifest = loaded.bundle.manifest
        # Before others wait for this to end; the store may be away.
        there = [manifest.version, *list_versions(self.store, manifest.recipe)]
        with Session(self._database) as session, session.begin():
            records.write_alone(session, AdvisoryLock.PROMOTION)
            newest = records.promotion_in_force(session, manifest.recipe)
            if since is not None and newest is not None and newest.id > since:
                # A person, or another process, decided while this bundle was loading.
                if newest.bundle_digest != loaded.bundle.digest:
                    return False
            else:
                session.add(
                    Promotion(
                        created_at=records.now(),
                        recipe=manifest.recipe,
                        bundle_version=manifest.version,
                        bundle_digest=loaded.bundle.digest,
                        newest_version=max(there),
                        by=by,
                        reason=reason,
                    )
                )
        self._swap_in(loaded)
        return True

    def _hold(self, loaded: Loaded, *, only_of: Bundle | None = None) -> None:
        """Let it decide, and let go of what there is no room for; not if `only_of` is replaced."""
        recipe = loaded.bundle.manifest.recipe
        with self._changing:
            if only_of is not None and self._champions[recipe].bundle is not only_of:
                return
            self._put(Champion(loaded.bundle, loaded.engine.device, loaded, next(self._uses)))
            if self._model_bytes is None:
                return
            room = self._model_bytes
            for champion in sorted(self._champions.values(), key=lambda c: c.used, reverse=True):
                room -= champion.loaded.size if champion.loaded else 0
                if room < 0 and champion.loaded not in (None, loaded):
                    self._put(replace(champion, loaded=None))

    def _put(self, champion: Champion) -> None:
        self._champions = {**self._champions, champion.bundle.manifest.recipe: champion}

    def _swap_in(self, loaded: Loaded) -> None:
        manifest = loaded.bundle.manifest
        self._hold(loaded)
        log.info(
            "bundle decides",
            recipe=manifest.recipe,
            version=manifest.version,
            digest=loaded.bundle.digest,
            device=loaded.engine.device,
        )


def _signature(path: Path) -> object:
    """Changes when a file of the bundle does: a copy under way is refused, then tried again."""
    found = []
    for file in path.glob("*"):
        try:
            status = file.stat()
        except OSError:
            continue  # gone since it was listed, or a dangling link, which open_bundle refuses
        found.append((file.name, status.st_size, status.st_mtime_ns))
    return sorted(found)
