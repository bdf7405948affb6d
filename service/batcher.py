"""Gathers items into batches for one device; knows no image, HTTP or ONNX.

Work-conserving: a free device takes what waits, at once, and a batch is never closed before the
device is free. One thread owns the device. A future travels with its item, so that whoever
stops waiting only cancels its own.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.errors import DeadlinePassed, EngineFailure, NotReady, QueueFull

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class _Job(Generic[Key, Item, Result]):
    key: Key
    item: Item
    deadline: float  # time.monotonic()
    future: "Future[Result]" = field(default_factory=Future)


class Batcher(Generic[Key, Item, Result]):
    """Runs items of the same key together, oldest first, `max_batch` at a time.

    `run(key, items)` gives a result for each item, in order; it is called on the batcher's own
    thread alone. When it raises, its items are run one by one, so that one item's failure is
    not its neighbours'.
    """

    def __init__(
        self,
        run: Callable[[Key, Sequence[Item]], Sequence[Result]],
        *,
        max_queue: int,
        max_batch: int,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._run = run
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._observe = observe
        self._jobs: deque[_Job[Key, Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="kizu-device", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """How many items wait; those that nobody waits for any more do not."""
        with self._changed:
            return sum(not job.future.cancelled() for job in self._jobs)

    def submit(self, key: Key, item: Item, *, deadline: float) -> "Future[Result]":
        """Queue an item; its future gives the result, or DeadlinePassed or the run's own error.

        `deadline` is on time.monotonic(). Raises QueueFull, or NotReady while closing, at once.
        """
        job: _Job[Key, Item, Result] = _Job(key, item, deadline)
        with self._changed:
            if self._closing:
                raise NotReady("The service is closing down.", remedy="Send the image again soon.")
            if len(self._jobs) >= self._max_queue:
                # Whoever stopped waiting takes no room.
                self._jobs = deque(job for job in self._jobs if not job.future.cancelled())
            if len(self._jobs) >= self._max_queue:
                raise QueueFull(
                    f"{len(self._jobs)} images are waiting for the device already.",
                    remedy="Send it again a little later, or send fewer at once.",
                )
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Refuse what is new, finish what waits, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if not self._jobs:
                    return
                batch = self._take()
            ready = [job for job in batch if self._still_wanted(job)]
            if ready:
                self._dispatch(ready)

    def _take(self) -> list[_Job[Key, Item, Result]]:
        """The oldest job with the oldest others of its key; the rest keep their order."""
        key = self._jobs[0].key
        batch: list[_Job[Key, Item, Result]] = []
        rest: deque[_Job[Key, Item, Result]] = deque()
        while self._jobs:
            job = self._jobs.popleft()
            (batch if job.key == key and len(batch) < self._max_batch else rest).append(job)
        self._jobs = rest
        return batch

    @staticmethod
    def _still_wanted(job: _Job[Key, Item, Result]) -> bool:
        """Drop what was cancelled or came too late, before the device spends time on it."""
        if not job.future.set_running_or_notify_cancel():
            return False
        if time.monotonic() > job.deadline:
            job.future.set_exception(DeadlinePassed("The device was busy past the deadline."))
            return False
        return True

    def _dispatch(self, jobs: list[_Job[Key, Item, Result]]) -> None:
        started = time.monotonic()
        try:
            results = self._run(jobs[0].key, [job.item for job in jobs])
            if len(results) != len(jobs):
                raise EngineFailure(f"The device gave {len(results)} results for {len(jobs)}.")
        except BaseException as error:  # noqa: BLE001 - it must reach those who wait
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
            else:
                for job in jobs:
                    self._dispatch([job])
            return
        self._observe(len(jobs), time.monotonic() - started)
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)
