"""Candidates on live traffic: what they would have said, after the champion has answered."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass

from anyio import to_thread
from sqlalchemy import Engine as Database
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from models.errors import KizuError
from models.image import Pixels, decode, resize, without_borders
from service.candidates import Candidates
from service.decision import decide
from service.metrics import Metrics
from service.recipes import Recipes
from service.registry import Loaded
from service.scoring import ImageBatcher, Scored
from service.settings import Settings
from service.store import records, review_queue
from service.store.tables import Inspection, ShadowResult

# Images that may wait for a candidate. It is no camera's business to wait for it: of a line
# that leaves the device no time, only some are compared.
MOST_WAITING = 32


@dataclass(frozen=True)
class _Job:
    row: Inspection
    image: bytes
    pixels: Pixels
    champion: Loaded
    candidate: Loaded


class Shadow:
    """Runs one image at a time, behind all others; on the event loop."""

    def __init__(
        self,
        candidates: Candidates,
        batcher: ImageBatcher,
        database: Database,
        recipes: Recipes,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._candidates = candidates
        self._batcher = batcher
        self._database = database
        self._recipes = recipes
        self._metrics = metrics
        self._settings = settings
        self._jobs: deque[_Job] = deque()
        self._worker: asyncio.Task[None] | None = None

    def follow(self, row: Inspection, image: bytes, pixels: Pixels, champion: Loaded) -> None:
        """Ask the candidate, if there is one, about an image that was just answered."""
        candidate = self._candidates.of(row.recipe)
        if candidate is None:
            return
        if len(self._jobs) >= MOST_WAITING:
            self._count(row, "skipped")
            return
        self._jobs.append(_Job(row, image, pixels, champion, candidate))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Leave what still waits."""
        self._jobs.clear()
        if self._worker:
            await self._worker

    async def _work(self) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            try:
                agrees = await self._compare(job)
            except (KizuError, SQLAlchemyError):
                self._count(job.row, "failed")
            else:
                self._count(job.row, "agrees" if agrees else "differs")

    async def _compare(self, job: _Job) -> bool:
        pixels = await to_thread.run_sync(self._pixels, job)
        deadline = time.monotonic() + self._settings.deadline_ms / 1000
        scored = await asyncio.wrap_future(
            self._batcher.submit(job.candidate, pixels, deadline=deadline, priority="bulk")
        )
        return await to_thread.run_sync(self._store, job, scored)

    def _pixels(self, job: _Job) -> Pixels:
        wanted, given = job.candidate.bundle.manifest, job.champion.bundle.manifest
        if (wanted.pixels, wanted.input) == (given.pixels, given.input):
            return job.pixels
        image = decode(job.image, wanted.pixels, max_pixels=self._settings.max_pixels)
        return resize(image, wanted.input)

    def _store(self, job: _Job, scored: Scored) -> bool:
        row, bundle = job.row, job.candidate.bundle
        with Session(self._database) as session, session.begin():
            decision = decide(
                scored.score,
                without_borders(
                    scored.heatmap, bundle.manifest.input, width=row.width, height=row.height
                ),
                records.thresholds_in_force(session, bundle),
                self._recipes.in_force(session, row.recipe).settings,
                width=row.width,
                height=row.height,
            )
            if decision.verdict != row.verdict:
                review_queue.contest(session, session.get_one(Inspection, row.id))
            session.add(
                ShadowResult(
                    inspection_id=row.id,
                    bundle_digest=bundle.digest,
                    bundle_version=bundle.manifest.version,
                    created_at=records.now(),
                    recipe=row.recipe,
                    score=decision.score,
                    verdict=decision.verdict,
                    champion_digest=row.bundle_digest,
                    champion_verdict=row.verdict,
                )
            )
        return decision.verdict == row.verdict

    def _count(self, row: Inspection, outcome: str) -> None:
        self._metrics.shadow.labels(row.recipe, outcome).inc()
