"""The use case: bytes in, durable verdict out."""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import anyio

from models.appearance import Appearance, appearance
from models.image import Pixels, decode, resize
from service.archive import Archive, Found
from service.batcher import Priority
from service.drift import Drift
from service.errors import (
    BadRequest,
    Conflict,
    DeadlinePassed,
    NotReady,
    QueueFull,
    as_service_error,
)
from service.inspection_request import InspectionRequest
from service.live import Event, Live
from service.metrics import Metrics
from service.pace import Pace
from service.recipes import Recipes
from service.registry import Loaded, Registry
from service.schemas import LineError
from service.scoring import ImageBatcher, Scored
from service.settings import Settings
from service.shadow import Shadow
from service.stopwatch import Stopwatch
from service.store import records
from service.store.tables import Inspection
from service.watchdog import Watchdog

T = TypeVar("T")


@dataclass(frozen=True)
class _Decoded:
    width: int
    height: int
    pixels: Pixels  # at the network's size
    appearance: Appearance


class Inspector:
    """Takes an image through decoding, the device and the store."""

    def __init__(
        self,
        registry: Registry,
        archive: Archive,
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
        self._archive = archive
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
                    replayed = await _thread(lambda: self._archive.replay(request))
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
        if self._live.tell(Event(row.id, row.recipe, row)):
            self._drift.add(row)
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
        result = self._archive.draft(request)
        try:
            async with _in_time(milliseconds):
                loaded = await self.loaded(await self._recipe(request))
                # Before the queue: a broken image is one refusal and never touches its neighbours.
                # Decoding takes one core, so there is another for the disk.
                decoded, _ = await asyncio.gather(
                    _thread(lambda: self._decode(request, loaded), self._decoders),
                    _thread(result.write_image),
                )
                watch.lap("decode")
                scored = await self._score(loaded, decoded.pixels, deadline, priority)
            watch.lap("queue", device=scored.seconds)
            found = Found(loaded, decoded.width, decoded.height, decoded.appearance, scored)
            row = await _thread(lambda: result.keep(found, watch))
        finally:
            result.discard()
        if row.stored:
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
