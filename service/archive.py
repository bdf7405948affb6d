"""Where results are kept: image, heatmap and row are on the disk before anybody is told."""

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy.exc import DBAPIError

from models.appearance import Appearance
from models.image import without_borders
from service import heatmap
from service.decision import decide
from service.disk_full import DiskFull
from service.errors import BadRequest, no_room
from service.inspection_request import InspectionRequest
from service.ledger import Ledger, Rules
from service.metrics import Metrics
from service.registry import Loaded
from service.scoring import Scored
from service.stopwatch import Stopwatch
from service.store import records
from service.store.blobs import Blobs
from service.store.reserve import Reserve
from service.store.tables import Inspection

log = structlog.get_logger()


@dataclass(frozen=True)
class Found:
    """What an image showed, before it is judged."""

    loaded: Loaded
    width: int
    height: int
    appearance: Appearance
    scored: Scored

    @property
    def heatmap(self) -> NDArray[np.float32]:
        """That of the image (h, w), without the borders that it was resized with."""
        size = self.loaded.bundle.manifest.input
        return without_borders(self.scored.heatmap, size, width=self.width, height=self.height)


class Archive:
    """Keeps results, each whole or not at all."""

    def __init__(
        self,
        blobs: Blobs,
        ledger: Ledger,
        metrics: Metrics,
        reserve: Reserve,
        *,
        disk_full: DiskFull,
    ) -> None:
        self._blobs = blobs
        self._ledger = ledger
        self._metrics = metrics
        self._reserve = reserve
        self._answers = disk_full == "answer"
        self._lost = 0
        self._lock = threading.Lock()

    @property
    def problem(self) -> str | None:
        """What people should know of it."""
        lost = self._lost
        if not lost:
            return None
        what = "answered, not stored" if self._answers else "refused"
        return f"The disk is full; since then {lost} images were {what}."

    def draft(self, request: InspectionRequest) -> "ResultDraft":
        """What may become a result; nothing is written yet."""
        return ResultDraft(request, self, self._blobs, self._ledger)

    def replay(self, request: InspectionRequest) -> Inspection | None:
        """The stored result of an earlier request with the same key. Raises BadRequest."""
        assert request.idempotency_key is not None
        row = self._ledger.by_key(request.idempotency_key)
        if row:
            check_same(request, row)
        return row

    def has_room(self) -> None:
        """A result was kept."""
        if not self._lost:
            return
        with self._lock:
            lost, self._lost = self._lost, 0
            if lost:
                log.info("results are stored again", lost=lost)
                self._reserve.take()

    def has_no_room(self, error: Exception) -> bool:
        """Whether to answer all the same, where that is why a result could not be kept."""
        if not no_room(error):
            return False
        with self._lock:
            if not self._lost:
                log.error("the disk is full", answers=self._answers)
            self._lost += 1
        if self._answers:
            self._metrics.unstored.inc()
        return self._answers


class ResultDraft:
    """What may become a result: `write_image`, then `keep`, and `discard` in any case.

    The last may come from another thread than the others, at any time.
    """

    def __init__(
        self, request: InspectionRequest, archive: Archive, blobs: Blobs, ledger: Ledger
    ) -> None:
        self._request = request
        self._archive = archive
        self._blobs = blobs
        self._ledger = ledger
        self._image = blobs.draft(request.image)
        self._refused: Exception | None = None

    def write_image(self) -> None:
        """Bring the image to the disk while it is being looked at. That it cannot be written is
        told by `keep`: a broken image is broken on a full disk, too."""
        _ = self._request.digest  # of the whole image: while another core decodes it
        try:
            self._image.write()
        except OSError as error:
            self._refused = error

    def keep(self, found: Found, watch: Stopwatch) -> Inspection:
        """The result that counts, by the rules in force: this one, or that of another process with
        the same key. It is on a disk, unless it says that it is not stored."""
        kept = heatmap.keep(found.heatmap)
        drawn = self._blobs.draft(kept.png)

        def judged(rules: Rules) -> Inspection:
            return self._judged(rules, found, kept, drawn.sha256, watch)

        # Both are held until there is a row that names them: where the request is given up, it lets
        # go of its image before this thread is done.
        with self._blobs.holding(self._image.sha256):
            try:
                if self._refused:
                    raise self._refused
                self._image.keep()
                drawn.write()
                drawn.keep()
                watch.lap("files")
                row = self._ledger.enter(found.loaded.bundle, judged)
            except (OSError, DBAPIError, sqlite3.Error) as error:
                if not self._archive.has_no_room(error):
                    raise
                return self._unstored(found, judged)
            finally:
                drawn.discard()
        self._archive.has_room()
        check_same(self._request, row)
        watch.lap("database")
        return row

    def discard(self) -> None:
        """Leave nothing behind that is not kept."""
        self._image.discard()

    def _unstored(self, found: Found, judged: Callable[[Rules], Inspection]) -> Inspection:
        row = judged(self._ledger.rules(found.loaded.bundle))
        row.stored = False
        return row

    def _judged(
        self,
        rules: Rules,
        found: Found,
        kept: heatmap.KeptHeatmap,
        heatmap_sha256: str,
        watch: Stopwatch,
    ) -> Inspection:
        request, bundle = self._request, found.loaded.bundle
        decision = decide(
            found.scored.score, found.heatmap, rules.thresholds, rules.recipe.settings,
            width=found.width, height=found.height,
        )  # fmt: skip
        return Inspection(
            id=records.new_id(),
            created_at=records.now(),
            recipe=bundle.manifest.recipe,
            part_id=request.part_id,
            lot=request.lot,
            camera=request.camera,
            simulated=request.simulated,
            idempotency_key=request.idempotency_key,
            request_sha256=request.digest,
            image_sha256=self._image.sha256,
            image_type=request.image_type,
            width=found.width,
            height=found.height,
            pixels=bundle.manifest.pixels.model_dump(),
            bundle_version=bundle.manifest.version,
            bundle_digest=bundle.digest,
            device=found.loaded.engine.device,
            verdict=decision.verdict,
            score=decision.score,
            percentile=_percentile(decision.score, bundle.manifest.calibration.quantiles),
            review_threshold=rules.thresholds.review,
            ng_threshold=rules.thresholds.ng,
            recipe_revision=rules.recipe.number,
            regions=[region.model_dump() for region in decision.regions],
            **found.appearance.model_dump(),
            heatmap_sha256=heatmap_sha256,
            heatmap_low=kept.low,
            heatmap_high=kept.high,
            processing_times=dict(watch.times),
        )


def check_same(request: InspectionRequest, row: Inspection) -> None:
    """Raises BadRequest where a key's result is that of another request."""
    if row.request_sha256 != request.digest:
        raise BadRequest(
            "The Idempotency-Key was used for another image or other parameters.",
            remedy="Use a new key for each part.",
        )


def _percentile(score: float, quantiles: tuple[float, ...]) -> float:
    """Which share of held-out good parts scores below, in percent."""
    return round(float(np.interp(score, quantiles, np.linspace(0, 100, len(quantiles)))), 2)
