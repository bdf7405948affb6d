"""Where results are entered, each once: in the database, and on this computer's disk while the
database is away."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine as Database
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from models.bundle import Bundle, Thresholds
from service.recipe_settings import Revision
from service.recipes import Recipes
from service.store import records, review_queue
from service.store.outage import AWAY, Outage
from service.store.spool import Spool, Waiting
from service.store.tables import Inspection

log = structlog.get_logger()

_LOOK_EVERY_S = 1.0
_AT_ONCE = 500
# Results whose requests may be sent again while the database cannot be asked.
_REMEMBERED = 2000


@dataclass(frozen=True)
class Rules:
    """By what a score becomes a verdict."""

    thresholds: Thresholds
    recipe: Revision


class Ledger:
    """Enters results. While the database is away, the rules are those that were in force last."""

    def __init__(
        self, database: Database, recipes: Recipes, outage: Outage, spool: Spool | None
    ) -> None:
        """Without a `spool`, what cannot be entered is an error."""
        self._database = database
        self._recipes = recipes
        self._outage = outage
        self._spool = spool
        self._rules: dict[str, Rules] = {}
        self._recent: OrderedDict[str, Inspection] = OrderedDict()
        self._draining = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="kizu-ledger", daemon=True)

    def start(self) -> None:
        """Begin to bring what waits to the database."""
        if self._spool is not None:
            self._thread.start()

    def close(self) -> None:
        """Stop; what waits goes on waiting."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def waiting(self) -> int:
        """How many results wait for the database."""
        return len(self._spool) if self._spool is not None else 0

    @property
    def problem(self) -> str | None:
        """What people should know of it."""
        if self._outage.now:
            return f"The database is away; {self.waiting} results wait on this computer's disk."
        return f"{self.waiting} results wait for the database." if self.waiting else None

    def by_key(self, key: str) -> Inspection | None:
        """The result of an earlier request with this key."""

        def read() -> Inspection | None:
            with Session(self._database, expire_on_commit=False) as session:
                return records.inspection_by_key(session, key)

        found = self._outage.attempt(read, lambda error: self._recent.get(key))
        if found is None and self._spool is not None:
            found = self._spool.by_key(key)
        return found

    def rules(self, bundle: Bundle) -> Rules:
        """Those in force; those that were last, where they cannot be read now."""

        def read() -> Rules:
            with Session(self._database) as session:
                return self._in_force(session, bundle)

        def last(error: Exception) -> Rules:
            if bundle.digest not in self._rules:
                raise error
            return self._rules[bundle.digest]

        try:
            return self._outage.attempt(read, last)
        except OperationalError as error:
            return last(error)

    def enter(self, bundle: Bundle, make: Callable[[Rules], Inspection]) -> Inspection:
        """The row that counts: the one that is made by the rules in force for a bundle's scores, or
        that of another process with the same key.

        It is on a disk once this returns.
        """
        made: list[tuple[Inspection, Rules]] = []
        entered = self._outage.attempt(
            lambda: self._insert(bundle, make, made),
            lambda error: self._keep(bundle, make, made, error),
        )
        if entered.idempotency_key and self._spool is not None:  # else it can always be asked for
            self._recent[entered.idempotency_key] = entered
            if len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
        return entered

    def _insert(
        self,
        bundle: Bundle,
        make: Callable[[Rules], Inspection],
        made: list[tuple[Inspection, Rules]],
    ) -> Inspection:
        with Session(self._database, expire_on_commit=False) as session:
            rules = self._in_force(session, bundle)
            row = make(rules)
            made.append((row, rules))
            row.number = records.NEXT_NUMBER
            session.add(row)
            try:
                session.flush()
                review_queue.consider(session, row, rules.recipe.settings.sampled)
                session.commit()
            except IntegrityError:
                # Another process has stored the same key in the meantime: its result counts.
                session.rollback()
                key = row.idempotency_key
                found = records.inspection_by_key(session, key) if key else None
                if found is None:
                    raise
                return found
        return row

    def _in_force(self, session: Session, bundle: Bundle) -> Rules:
        rules = Rules(
            records.thresholds_in_force(session, bundle),
            self._recipes.in_force(session, bundle.manifest.recipe),
        )
        self._rules[bundle.digest] = rules
        return rules

    def _keep(
        self,
        bundle: Bundle,
        make: Callable[[Rules], Inspection],
        made: list[tuple[Inspection, Rules]],
        error: Exception,
    ) -> Inspection:
        """Beside the database. Whether it was lost before or after it was committed there, nobody
        can tell: so it is the very same row."""
        rules = made[0][1] if made else self._rules.get(bundle.digest)
        if self._spool is None or rules is None:
            raise error
        row = made[0][0] if made else make(rules)
        self._spool.keep(Waiting(row, rules.recipe.settings.sampled))
        return row

    def _loop(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            if self._outage.now and not self._outage.is_over():
                continue
            self.drain()

    def drain(self) -> None:
        """Bring to the database what waits. What was brought already, before a crash, is left."""
        with self._draining:
            self._drain()

    def _drain(self) -> None:
        while self.waiting and not self._stop.is_set():
            assert self._spool is not None
            batch = self._spool.oldest(_AT_ONCE)
            ids = [one.row.id for one in batch]
            try:
                self._bring(batch)
            except AWAY as error:
                log.warning("results not brought yet", error=str(error).splitlines()[0])
                return
            except SQLAlchemyError:
                # One that the database does not take must not keep the others here.
                ids = [one.row.id for one in batch if self._bring_alone(one)]
                if not ids:
                    return
            self._spool.remove(ids)
            log.info("results brought to the database", number=len(ids), left=self.waiting)

    def _bring_alone(self, one: Waiting) -> bool:
        try:
            self._bring([one])
        except SQLAlchemyError as error:
            log.error("a result waits on", id=one.row.id, error=str(error).splitlines()[0])
            return False
        return True

    def _bring(self, batch: list[Waiting]) -> None:
        with Session(self._database, expire_on_commit=False) as session, session.begin():
            ids = [one.row.id for one in batch]
            there = set(session.scalars(select(Inspection.id).where(Inspection.id.in_(ids))))
            keys = [one.row.idempotency_key for one in batch if one.row.idempotency_key]
            taken = set(
                session.scalars(
                    select(Inspection.idempotency_key).where(
                        Inspection.idempotency_key.in_(keys), Inspection.id.not_in(ids)
                    )
                )
            )
            first = records.next_number(session)
            for number, one in enumerate(batch, first):
                one.row.number = number
                if one.row.id in there:
                    continue
                if one.row.idempotency_key in taken:
                    # The same part, sent again while nobody could tell: both were answered.
                    log.warning("a part was inspected twice", id=one.row.id)
                    one.row.idempotency_key = None
                session.add(one.row)
            session.flush()
            for one in batch:
                if one.row.id not in there:
                    review_queue.consider(session, one.row, one.sampled)
