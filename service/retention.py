"""Which images and heatmaps go, and when: by verdict, by age, by room. Rows stay, and so do all
files that a label was given for.

A row says first that its files are gone; then they go, unless another row needs them. What a crash
leaves in between, as what was never named by a row, is swept later. Of several services with one
database one alone does all that.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import disk_usage

import structlog
from sqlalchemy import Engine as Database
from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.errors import StorageUnavailable, no_room
from service.ledger import Ledger
from service.metrics import Metrics
from service.store import records
from service.store.advisory_locks import AdvisoryLock
from service.store.blobs import Blobs
from service.store.reserve import Reserve
from service.store.tables import Feedback, Inspection, ReviewItem, Training
from service.store.turn import Turn
from service.wall_clock import WallClock

log = structlog.get_logger()

EVERY_S = 60.0
MEASURE_EVERY_S = 600.0
SWEEP_EVERY_S = 24 * 3600.0
_AT_ONCE = 200
_GB = 1_000_000_000


@dataclass(frozen=True)
class Policy:
    """How long and how much; 0 is for ever, and any number. `free_gb` holds whatever else is said:
    a full disk stops the line."""

    ok_days: float = 0.0
    other_days: float = 0.0
    quota_gb: float = 0.0
    free_gb: float = 0.0


class Retention:
    """Removes the oldest first, passed parts before others, labelled ones never."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        data: Path,
        reserve: Reserve,
        policy: Policy,
        ledger: Ledger,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._data = data
        self._reserve = reserve
        self._policy = policy
        self._ledger = ledger
        self._metrics = metrics
        self._turn = Turn(database, AdvisoryLock.RETENTION)
        self._problem: str | None = None
        self._measured = 0
        self._measure_at = 0.0
        self._clock = WallClock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="kizu-retention", daemon=True)

    @property
    def problem(self) -> str | None:
        """Why there is less room than wanted, and nothing more to remove."""
        return self._problem

    def start(self) -> None:
        """Begin; in this thread's own time, for nothing waits for it."""
        self._thread.start()

    def close(self) -> None:
        """Stop after what is being removed just now."""
        self._stop.set()
        self._thread.join()
        self._turn.close()

    def apply(self) -> None:
        """Remove what is too old, as far as that can be told, and what there is no room for;
        nothing while files cannot be removed, or their rows would say that they were."""
        if self._blobs.problem:
            return
        policy = self._policy
        now = self._clock.believed()
        for kind, days in (("ok", policy.ok_days), ("other", policy.other_days)):
            if days and now is None:
                log.warning("the clock was set forward: nothing is removed for its age", kind=kind)
            elif days and now is not None:
                self._older(kind, now, days)
        self._problem = self._make_room()

    def sweep(self) -> int:
        """Remove files that no row names; how many there were."""
        now = self._clock.believed()
        if now is None:
            return 0
        count = self._blobs.tidy(now, self._is_needed)
        before = now - self._blobs.orphans_after.total_seconds()
        for blob in self._blobs.all():
            if self._stop.is_set():
                break
            if blob.written_at < before:
                count += bool(self._blobs.remove_unless(blob.sha256, self._is_needed))
        self._count("orphan", count)
        return count

    def _loop(self) -> None:
        swept = time.monotonic() - SWEEP_EVERY_S + EVERY_S  # a while after the start
        while not self._stop.wait(EVERY_S):
            try:
                if not self._turn.is_mine():
                    self._measure_at = 0.0  # what is there by then, another has changed
                    continue
                self._apply_anyhow()
                if time.monotonic() - swept > SWEEP_EVERY_S:
                    self.sweep()
                    swept = time.monotonic()
            except (SQLAlchemyError, OSError, StorageUnavailable) as error:
                log.warning("retention put off", error=str(error).splitlines()[0])

    def _apply_anyhow(self) -> None:
        try:
            self.apply()
        except (SQLAlchemyError, OSError) as error:
            if not no_room(error):
                raise
            with self._reserve.lent():
                self.apply()

    def _older(self, kind: str, now: float, days: float) -> None:
        before = datetime.fromtimestamp(now, UTC) - timedelta(days=days)
        while not self._stop.is_set():
            with Session(self._database) as session:
                rows = _removable(session, kind, Inspection.created_at < before)
            if not rows:
                return
            self._remove(rows, "age")

    def _make_room(self) -> str | None:
        """Until there is enough, or nothing is left to remove; then why there is too little."""
        used = self._used()
        while not self._stop.is_set():
            wanted = self._too_much(used)
            if wanted is None:
                return None
            with Session(self._database) as session:
                rows = _removable(session, "ok") or _removable(session, "other")
            if not rows:
                return f"{wanted}, and only labelled parts' images are left."
            used -= self._remove(rows, "room")
        return None

    def _used(self) -> int:
        """Bytes of all files, where there is a quota: each is looked at, so not too often."""
        if self._policy.quota_gb and time.monotonic() >= self._measure_at:
            self._measured = sum(blob.size for blob in self._blobs.all())
            self._measure_at = time.monotonic() + MEASURE_EVERY_S
        return self._measured

    def _too_much(self, used: int) -> str | None:
        policy = self._policy
        free = disk_usage(self._data).free
        if policy.free_gb and free < policy.free_gb * _GB:
            return f"{free / _GB:.1f} GB are free, {policy.free_gb:g} are to be"
        if policy.quota_gb and used > policy.quota_gb * _GB:
            return f"Images take {used / _GB:.1f} GB, {policy.quota_gb:g} at most are allowed"
        return None

    def _remove(self, rows: Sequence[Inspection], reason: str) -> int:
        """How many bytes that freed."""
        ids = [row.id for row in rows]
        with Session(self._database) as session, session.begin():
            gone = update(Inspection).where(Inspection.id.in_(ids))
            session.execute(gone.values(files_removed_at=records.now()))
            session.execute(delete(ReviewItem).where(ReviewItem.inspection_id.in_(ids)))
        freed = 0
        for row in rows:
            for sha256 in (row.image_sha256, row.heatmap_sha256):
                freed += self._blobs.remove_unless(sha256, self._is_needed)
        self._count(reason, len(rows))
        log.info(
            "images removed", reason=reason, inspections=len(rows), bytes=freed,
            oldest=rows[0].created_at.isoformat(),
        )  # fmt: skip
        self._measured -= freed
        return freed

    def _is_needed(self, sha256: str) -> bool:
        """Whether any row names a file that should be there: also one that was labelled just when
        it was to go, and any that waits for the database, of which nothing is known here."""
        if self._ledger.waiting:
            return True
        there = or_(Inspection.files_removed_at.is_(None), _LABELLED)
        named = or_(Inspection.image_sha256 == sha256, Inspection.heatmap_sha256 == sha256)
        with Session(self._database) as session:
            return any(
                session.scalar(query.limit(1)) is not None
                for query in (
                    select(Inspection.id).where(there, named),
                    select(Feedback.id).where(Feedback.mask_sha256 == sha256),
                    select(Training.id).where(Training.report_sha256 == sha256),
                )
            )

    def _count(self, reason: str, number: int) -> None:
        self._metrics.removed.labels(reason).inc(number)


_LABELLED = select(Feedback.id).where(Feedback.inspection_id == Inspection.id).exists()


def _removable(session: Session, kind: str, *more: object) -> list[Inspection]:
    """The oldest inspections whose files are there and that nobody has labelled."""
    verdicts = Inspection.verdict == "ok" if kind == "ok" else Inspection.verdict != "ok"
    query = (
        select(Inspection)
        .where(Inspection.files_removed_at.is_(None), verdicts, ~_LABELLED, *more)  # type: ignore[arg-type]
        .order_by(Inspection.created_at)
        .limit(_AT_ONCE)
    )
    found = list(session.scalars(query))
    session.expunge_all()
    return found
