"""The use case: bytes in, durable verdict out."""

import asyncio
import contextlib
import hashlib
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import anyio
import numpy as np

from models.appearance import Appearance, appearance
from models.image import Pixels, decode, resize
from service import heatmap
from service.batcher import Priority
from service.decision import decide
from service.drift import Drift
from service.errors import (
    BadRequest,
    Conflict,
    DeadlinePassed,
    NotReady,
    QueueFull,
    as_service_error,
)
from service.ledger import Ledger, Rules
from service.live import Event, Live
from service.metrics import Metrics
from service.pace import Pace
from service.recipes import Recipes
from service.registry import Loaded, Registry
from service.schemas import LineError
from service.scoring import ImageBatcher, Scored
from service.settings import Settings
from service.shadow import Shadow
from service.store import records
from service.store.blobs import BlobDraft, Blobs
from service.store.tables import Inspection
from service.watchdog import Watchdog

T = TypeVar("T")


@dataclass(frozen=True)
class InspectionRequest:
    """One image to inspect, and what its sender says of it."""

    image: bytes
    image_type: str
    recipe: str | None = None
    number: int | None = None  # of the recipe, in its name's place
    part_id: str | None = None
    lot: str | None = None
    camera: str | None = None
    simulated: bool = False
    idempotency_key: str | None = None
    deadline_ms: int | None = None
    batch: str | None = None  # names the batch request that it came in, whose key it shares

    @property
    def digest(self) -> str:
        """Equal for requests that ask for the same thing."""
        facts: tuple[object, ...] = (
            self.recipe, self.part_id, self.camera, self.simulated, self.batch,
        )  # fmt: skip
        if (self.lot, self.number) != (None, None):  # keys given before there were any stay good
            facts += (self.lot, self.number)
        return hashlib.sha256(self.image + repr(facts).encode()).hexdigest()


@dataclass(frozen=True)
class _Decoded:
    width: int
    height: int
    pixels: Pixels  # at the network's size
    appearance: Appearance


@dataclass(frozen=True)
class _Prepared:
    """What a row needs beside the score."""

    image_sha256: str
    request_sha256: str


@dataclass(frozen=True)
class _Known:
    """All that is known of an image before it is judged."""

    request: InspectionRequest
    loaded: Loaded
    decoded: _Decoded
    prepared: _Prepared
    scored: Scored
    heatmap: heatmap.KeptHeatmap
    heatmap_sha256: str
    times: dict[str, float]

    def judged(self, rules: Rules) -> Inspection:
        """The row, by the rules in force."""
        request, manifest = self.request, self.loaded.bundle.manifest
        decision = decide(
            self.scored.score, self.scored.heatmap, rules.thresholds, rules.recipe.settings,
            width=self.decoded.width, height=self.decoded.height,
        )  # fmt: skip
        return Inspection(
            id=records.new_id(),
            created_at=records.now(),
            recipe=manifest.recipe,
            part_id=request.part_id,
            lot=request.lot,
            camera=request.camera,
            simulated=request.simulated,
            idempotency_key=request.idempotency_key,
            request_sha256=self.prepared.request_sha256,
            image_sha256=self.prepared.image_sha256,
            image_type=request.image_type,
            width=self.decoded.width,
            height=self.decoded.height,
            pixels=manifest.pixels.model_dump(),
            bundle_version=manifest.version,
            bundle_digest=self.loaded.bundle.digest,
            device=self.loaded.engine.device,
            verdict=decision.verdict,
            score=decision.score,
            percentile=_percentile(decision.score, manifest.calibration.quantiles),
            review_threshold=rules.thresholds.review,
            ng_threshold=rules.thresholds.ng,
            recipe_revision=rules.recipe.number,
            regions=[region.model_dump() for region in decision.regions],
            **self.decoded.appearance.model_dump(),
            heatmap_sha256=self.heatmap_sha256,
            heatmap_low=self.heatmap.low,
            heatmap_high=self.heatmap.high,
            processing_times=dict(self.times),
        )


class Stopwatch:
    """Milliseconds by step, each from the end of the one before."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.times: dict[str, float] = {}

    def lap(self, step: str, **inner_s: float) -> None:
        """End a step; what was done within it, in seconds, counts apart."""
        now = time.perf_counter()
        took = now - self._last - sum(inner_s.values())
        self._last = now
        for name, seconds in {step: max(took, 0.0), **inner_s}.items():
            self.times[name] = round(1000 * seconds, 3)


class Inspector:
    """Takes an image through decoding, the device and the store."""

    def __init__(
        self,
        registry: Registry,
        ledger: Ledger,
        blobs: Blobs,
        batcher: ImageBatcher,
        watchdog: Watchdog,
        pace: Pace,
        metrics: Metrics,
        live: Live,
        shadow: Shadow,
        recipes: Recipes,
        drift: Drift,
        settings: Settings,
    ) -> None:
        self._registry = registry
        self._batcher = batcher
        self._watchdog = watchdog
        self._ledger = ledger
        self._blobs = blobs
        self._metrics = metrics
        self._live = live
        self._shadow = shadow
        self._recipes = recipes
        self._drift = drift
        self._settings = settings
        self._in_flight: set[str] = set()
        self._pace = pace
        self._bulk = asyncio.Semaphore(batcher.at_once)
        self._decoders = anyio.CapacityLimiter(os.cpu_count() or 1)

    async def inspect(
        self, request: InspectionRequest, *, priority: Priority = "line"
    ) -> Inspection:
        """Inspect one image and store the result before it is returned.

        Raises ImageError or a ServiceError; then nothing is stored.
        """
        started = time.perf_counter()
        outcome: str | None = "error"
        try:
            self.check_room(request.deadline_ms)
            with self._alone(request.idempotency_key), self._pace.one() as way:
                if request.idempotency_key:
                    replayed = await _thread(lambda: self._replay(request))
                    if replayed:
                        outcome = None  # it was counted when it came first
                        return replayed
                row = await self._inspect(request, priority)
                self._pace.done(way)
                outcome = row.verdict
        except Exception as error:
            self._live.tell(_failure(request, error))
            raise
        finally:
            if outcome:
                seconds = time.perf_counter() - started
                self._metrics.cameras.count(request.camera, outcome, seconds)
        self._metrics.inspections.labels(row.recipe, row.verdict).inc()
        self._metrics.scores.add(row.recipe, row.bundle_version, row.score)
        self._drift.add(row)
        self._live.tell(Event(row.id, row.recipe, row))
        return row

    async def inspect_in_bulk(self, request: InspectionRequest) -> Inspection:
        """The same for one of many images, which line cameras go before: only a batch's worth of
        them is under way at a time."""
        async with self._bulk:
            return await self.inspect(request, priority="bulk")

    def check_room(self, deadline_ms: int | None = None) -> None:
        """Raise NotReady or QueueFull where an image would only be refused: before it is read."""
        self._watchdog.check()
        waiting, within_s = self._pace.under_way, self._pace.within_s
        full = waiting >= self._settings.max_queue + self._batcher.at_once
        if full or 1000 * within_s > self._milliseconds(deadline_ms):
            refused = QueueFull(
                f"{waiting} images are being inspected already.",
                remedy="Send it again a little later, or send fewer at once.",
            )
            refused.retry_after_s = max(1, math.ceil(within_s))
            raise refused

    async def loaded(self, recipe: str | None) -> Loaded:
        """The champion of a recipe, loaded. Raises what the registry does."""
        loaded = self._registry.ready(recipe)
        return loaded if loaded else await _thread(lambda: self._registry.load(recipe))

    async def score(self, loaded: Loaded, images: Sequence[Pixels]) -> list[Scored]:
        """Raw scores of images at the network's size; nothing is stored. Several are bulk."""
        self._watchdog.check()
        deadline = time.monotonic() + self._settings.deadline_ms / 1000

        async def one_of_many(image: Pixels) -> Scored:
            async with self._bulk:
                with self._pace.one():
                    return await self._score(loaded, image, deadline, "bulk")

        async with _in_time(self._settings.deadline_ms):
            if len(images) == 1:
                with self._pace.one():
                    return [await self._score(loaded, images[0], deadline, "line")]
            tasks = [asyncio.ensure_future(one_of_many(image)) for image in images]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def _inspect(self, request: InspectionRequest, priority: Priority) -> Inspection:
        milliseconds = self._milliseconds(request.deadline_ms)
        watch = Stopwatch()
        deadline = time.monotonic() + milliseconds / 1000
        image = self._blobs.draft(request.image)
        try:
            async with _in_time(milliseconds):
                loaded = await self.loaded(await self._recipe(request))
                # Before the queue: a broken image is one refusal and never touches its neighbours.
                # Decoding takes one core, so there is another for the disk.
                decoded, prepared = await asyncio.gather(
                    _thread(lambda: self._decode(request, loaded), self._decoders),
                    _thread(lambda: self._prepare(request, image)),
                )
                watch.lap("decode")
                scored = await self._score(loaded, decoded.pixels, deadline, priority)
            watch.lap("queue", device=scored.seconds)
            row = await _thread(
                lambda: self._store(request, loaded, decoded, image, prepared, scored, watch)
            )
        finally:
            image.discard()
        self._shadow.follow(row, request.image, decoded.pixels, loaded)
        for step, milliseconds_of_step in watch.times.items():
            self._metrics.steps.labels(step).observe(milliseconds_of_step / 1000)
        return row

    async def _recipe(self, request: InspectionRequest) -> str | None:
        if request.number is None:
            return request.recipe
        if request.recipe is not None:
            raise BadRequest(
                "The request names a recipe and a recipe's number.", remedy="Send one of them."
            )
        number = request.number
        return await _thread(lambda: self._recipes.by_number(number))

    async def _score(
        self, loaded: Loaded, pixels: Pixels, deadline: float, priority: Priority
    ) -> Scored:
        try:
            scored = await asyncio.wrap_future(
                self._batcher.submit(loaded, pixels, deadline=deadline, priority=priority)
            )
        except (QueueFull, DeadlinePassed, NotReady):
            raise
        except Exception:  # whatever else it is, the device did not answer
            self._watchdog.suspect()
            raise
        self._watchdog.check()
        return scored

    def _decode(self, request: InspectionRequest, loaded: Loaded) -> _Decoded:
        manifest = loaded.bundle.manifest
        image = decode(request.image, manifest.pixels, max_pixels=self._settings.max_pixels)
        height, width = image.shape[:2]
        pixels = resize(image, manifest.input)
        return _Decoded(width, height, pixels, appearance(pixels))

    def _prepare(self, request: InspectionRequest, image: BlobDraft) -> _Prepared:
        return _Prepared(image.write(), request.digest)

    def _store(
        self,
        request: InspectionRequest,
        loaded: Loaded,
        decoded: _Decoded,
        image: BlobDraft,
        prepared: _Prepared,
        scored: Scored,
        watch: Stopwatch,
    ) -> Inspection:
        kept = heatmap.keep(scored.heatmap)
        drawn = self._blobs.draft(kept.png)
        # Both are held until there is a row that names them: where the request is given up, it lets
        # go of its image before this thread is done.
        with self._blobs.holding(prepared.image_sha256):
            try:
                image.keep()
                heatmap_sha256 = drawn.write()
                drawn.keep()
                watch.lap("files")
                known = _Known(
                    request, loaded, decoded, prepared, scored, kept, heatmap_sha256, watch.times
                )
                row = self._ledger.enter(loaded.bundle, known.judged)
            finally:
                drawn.discard()
        self._check_same(request, row)
        watch.lap("database")
        return row

    def _replay(self, request: InspectionRequest) -> Inspection | None:
        """The stored result of an earlier request with the same key. Raises BadRequest."""
        assert request.idempotency_key is not None
        row = self._ledger.by_key(request.idempotency_key)
        if row:
            self._check_same(request, row)
        return row

    @staticmethod
    def _check_same(request: InspectionRequest, row: Inspection) -> None:
        if row.request_sha256 != request.digest:
            raise BadRequest(
                "The Idempotency-Key was used for another image or other parameters.",
                remedy="Use a new key for each part.",
            )

    def _milliseconds(self, asked: int | None) -> int:
        most = self._settings.deadline_ms
        return min(asked or most, most)

    @contextlib.contextmanager
    def _alone(self, key: str | None) -> Iterator[None]:
        if key is None:
            yield
            return
        if key in self._in_flight:
            raise Conflict(
                "A request with this Idempotency-Key is being carried out.",
                remedy="Ask again with the same key.",
            )
        self._in_flight.add(key)
        try:
            yield
        finally:
            self._in_flight.discard(key)


def _failure(request: InspectionRequest, error: Exception) -> Event:
    shown = as_service_error(error)
    content = LineError(
        recipe=request.recipe, part_id=request.part_id, camera=request.camera,
        creation_time=records.now(), title=shown.title, detail=str(shown),
    )  # fmt: skip
    return Event(f"error-{records.new_id()}", request.recipe, content)


def _percentile(score: float, quantiles: tuple[float, ...]) -> float:
    """Which share of held-out good parts scores below, in percent."""
    return round(float(np.interp(score, quantiles, np.linspace(0, 100, len(quantiles)))), 2)


@contextlib.asynccontextmanager
async def _in_time(milliseconds: int) -> AsyncIterator[None]:
    """Raise DeadlinePassed where what is done within takes longer."""
    try:
        async with asyncio.timeout(milliseconds / 1000):
            yield
    except TimeoutError as error:
        raise DeadlinePassed(
            f"There was no verdict within {milliseconds} ms.",
            remedy="Treat the part as not inspected; send fewer images or a longer deadline.",
        ) from error


async def _thread(call: Callable[[], T], limiter: anyio.CapacityLimiter | None = None) -> T:
    # Given up on at a deadline, not waited for: the thread ends by itself, its result unused.
    return await anyio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=True)
