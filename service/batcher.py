"""Gathers items into batches for one device; knows no image, HTTP or ONNX.

Work-conserving: a free device takes what waits, at once, and a batch is never closed before the
device is free. A device has one lane, with a thread of its own, or several that run at the same
time, as a processor with its cores. A future travels with its item, so that whoever stops
waiting only cancels its own.
"""

import bisect
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from weakref import WeakKeyDictionary

from service.errors import DeadlinePassed, EngineFailure, NotReady, QueueFull
from service.service_time import ServiceTime

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")
Priority = Literal["first", "line", "bulk"]
# Why a batch was closed: the device had been waiting for it, had just become free, could take no
# more, or the oldest item had waited for company as long as it may.
Reason = Literal["idle", "free", "full", "aged"]


@dataclass(frozen=True)
class Run:
    """What the device did at once, and why then. `waited_s` is the oldest item's wait."""

    size: int
    seconds: float
    reason: Reason
    waited_s: float


@dataclass(frozen=True)
class _UnderWay:
    since: float
    until: float  # as far as is known
    jobs: Sequence["_Job[Any, Any, Any]"]


@dataclass
class _Job(Generic[Key, Item, Result]):
    key: Key
    item: Item
    deadline: float  # time.monotonic(), as all times here
    priority: Priority
    arrived: float
    turn: float  # when it would have arrived, were it a line camera's
    future: "Future[Result]" = field(default_factory=Future)


class Batcher(Generic[Key, Item, Result]):
    """Runs items of the same key together, `max_batch` at a time.

    Items of line cameras go before others, which count as if they had come `bulk_age_s` later;
    among equals the oldest. What is `first` goes before all, and there is always room for it. A
    batch grows only as long as all of it is expected to meet its deadlines, by what runs of that
    key took before. With `linger_s`, a batch that is not full waits for company until its oldest
    item is that old.

    `run(key, items)` gives a result for each item, in order; it is called on the batcher's own
    threads, one for each of `lanes`. When it raises, its items are run one by one, so that one
    item's failure is not its neighbours'. Keys are held weakly.
    """

    def __init__(
        self,
        run: Callable[[Key, Sequence[Item]], Sequence[Result]],
        *,
        max_queue: int,
        max_batch: int,
        lanes: int = 1,
        bulk_age_s: float = 1.0,
        linger_s: float = 0.0,
        observe: Callable[[Run], None] = lambda run: None,
    ) -> None:
        self._run = run
        self._max_queue = max_queue
        self.max_batch = max_batch
        self._bulk_age_s = bulk_age_s
        self._linger_s = linger_s
        self._observe = observe
        self._jobs: list[_Job[Key, Item, Result]] = []  # by turn
        self._times: WeakKeyDictionary[Key, ServiceTime] = WeakKeyDictionary()
        self._under_way: dict[int, _UnderWay] = {}  # by lane
        self._changed = threading.Condition()
        self._closing = False
        self._lanes = [
            threading.Thread(
                target=self._loop, args=(lane,), name=f"kizu-device-{lane}", daemon=True
            )
            for lane in range(lanes)
        ]
        for thread in self._lanes:
            thread.start()

    @property
    def at_once(self) -> int:
        """How many items can be run at the same time."""
        return len(self._lanes) * self.max_batch

    @property
    def depth(self) -> int:
        """How many items wait; those that nobody waits for any more do not."""
        with self._changed:
            return sum(not job.future.cancelled() for job in self._jobs)

    @property
    def age(self) -> float:
        """Seconds that the oldest item has been waiting."""
        with self._changed:
            oldest = min((job.arrived for job in self._jobs), default=math.inf)
        return max(0.0, time.monotonic() - oldest)

    @property
    def running_s(self) -> float:
        """Seconds that the oldest run under way has taken; 0 where there is none."""
        with self._changed:
            oldest = min((run.since for run in self._under_way.values()), default=math.inf)
        return max(0.0, time.monotonic() - oldest)

    def submit(
        self, key: Key, item: Item, *, deadline: float, priority: Priority = "line"
    ) -> "Future[Result]":
        """Queue an item; its future gives the result, or DeadlinePassed or the run's own error.

        `deadline` is on time.monotonic(). Raises at once: DeadlinePassed, QueueFull where there is
        no room or the deadline would not be met, or NotReady while closing. A line camera's item
        takes the room of the newest bulk item, whose future then raises QueueFull.
        """
        now = time.monotonic()
        turn = {"first": -math.inf, "line": now, "bulk": now + self._bulk_age_s}[priority]
        job: _Job[Key, Item, Result] = _Job(key, item, deadline, priority, now, turn)
        with self._changed:
            if self._closing:
                raise NotReady("The service is closing down.", remedy="Send the image again soon.")
            self._jobs = [job for job in self._jobs if not job.future.cancelled()]
            ahead = [other for other in self._jobs if other.turn <= turn]
            wait = self._expected_wait([other.key for other in ahead] + [key], now)
            if now > deadline:
                raise _late()
            if ahead and now + wait > deadline:
                raise _full(len(self._jobs), wait)
            full = len(self._jobs) >= self._max_queue and priority != "first"
            if full and not self._make_room(priority, wait):
                raise _full(len(self._jobs), wait)
            bisect.insort(self._jobs, job, key=lambda other: other.turn)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Refuse what is new, finish what waits, and end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._lanes:
            thread.join()

    def give_up(self, error: Exception) -> None:
        """Refuse what is new, and give all that waits or is under way this error, at once."""
        with self._changed:
            self._closing = True
            under_way = [job for run in self._under_way.values() for job in run.jobs]
            waiting, self._jobs = self._jobs, []
            self._changed.notify_all()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)
        for job in under_way:
            with suppress(InvalidStateError):  # it is done just now
                job.future.set_exception(error)

    def learn(self, key: Key, count: int, seconds: float) -> None:
        """Take note of how long a run takes that was not the batcher's own, as a warm-up."""
        with self._changed:
            self._times.setdefault(key, ServiceTime()).learn(count, seconds)

    def _expected_wait(self, keys: Sequence[Key], now: float) -> float:
        """Seconds until items of these keys were run, each key's as full batches; the last is one's
        own, which no other lane makes shorter."""
        work = sum(max(0.0, run.until - now) for run in self._under_way.values())
        for key, count in Counter(keys).items():
            batches, rest = divmod(count, self.max_batch)
            work += batches * self._time_of(key, self.max_batch)
            work += self._time_of(key, rest) if rest else 0.0
        return max(work / len(self._lanes), self._time_of(keys[-1], 1))

    def _time_of(self, key: Key, count: int) -> float:
        known = self._times.get(key)
        return known.of(count) if known else 0.0

    def _make_room(self, priority: Priority, wait: float) -> bool:
        bulk = [job for job in self._jobs if job.priority == "bulk"]
        if priority == "bulk" or not bulk:
            return False
        given_up = bulk[-1]
        self._jobs.remove(given_up)
        if given_up.future.set_running_or_notify_cancel():
            given_up.future.set_exception(_full(len(self._jobs), wait))
        return True

    def _loop(self, lane: int) -> None:
        while True:
            with self._changed:
                idle = not self._jobs
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if not self._jobs:
                    return
                aged = self._linger()
                batch = self._take()
                if batch:
                    now = time.monotonic()
                    expected = self._time_of(batch[0].key, len(batch))
                    self._under_way[lane] = _UnderWay(now, now + expected, batch)
                    if self._jobs:
                        self._changed.notify()  # another lane
            if batch:
                full = len(batch) == self.max_batch
                reason: Reason = "full" if full else "aged" if aged else "idle" if idle else "free"
                self._dispatch(batch, reason)
            with self._changed:
                self._under_way.pop(lane, None)

    def _linger(self) -> bool:
        """Wait for company, if any is allowed for; whether the oldest item's age ended it."""
        if not self._linger_s:
            return False

        def enough() -> bool:
            return self._closing or not self._jobs or len(self._alike()) >= self.max_batch

        while not enough():
            # Half of what a deadline leaves beside the run, since the run may take longer.
            head, company = self._jobs[0], len(self._alike()) + 1
            spare = min(job.deadline - job.arrived for job in self._alike())
            spare = (spare - self._time_of(head.key, company)) / 2
            left = head.arrived + min(self._linger_s, spare) - time.monotonic()
            if left <= 0:
                return True
            self._changed.wait(left)
        return False

    def _alike(self) -> list[_Job[Key, Item, Result]]:
        return [job for job in self._jobs if job.key == self._jobs[0].key]

    def _take(self) -> list[_Job[Key, Item, Result]]:
        """The job whose turn it is, with others of its key; the rest keep their order.

        What was cancelled or comes too late leaves before the device spends time on it.
        """
        now = time.monotonic()
        self._jobs = [job for job in self._jobs if self._wanted(job, now)]
        if not self._jobs:
            return []
        batch: list[_Job[Key, Item, Result]] = []
        earliest = math.inf
        alike = self._alike()
        # Lanes that are free, too, have their share.
        share = math.ceil(len(alike) / (len(self._lanes) - len(self._under_way)))
        most = min(share, self.max_batch)
        for job in alike:
            ends = now + self._time_of(job.key, len(batch) + 1)
            if len(batch) == most or (batch and ends > min(earliest, job.deadline)):
                continue
            if job.future.set_running_or_notify_cancel():
                batch.append(job)
                earliest = min(earliest, job.deadline)
        taken = {id(job) for job in batch}
        self._jobs = [job for job in self._jobs if id(job) not in taken and not job.future.done()]
        return batch

    def _wanted(self, job: _Job[Key, Item, Result], now: float) -> bool:
        if job.future.cancelled():
            return False
        # Alone it is run though it may be late: an estimate that was once too high would else
        # never be mended.
        alone = len(self._jobs) == 1
        if now <= job.deadline - (0.0 if alone else self._time_of(job.key, 1)):
            return True
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(_late())
        return False

    def _dispatch(self, jobs: list[_Job[Key, Item, Result]], reason: Reason) -> None:
        started = time.monotonic()
        try:
            results = self._run(jobs[0].key, [job.item for job in jobs])
            if len(results) != len(jobs):
                raise EngineFailure(f"The device gave {len(results)} results for {len(jobs)}.")
        except BaseException as error:  # noqa: BLE001 - it must reach those who wait
            if len(jobs) == 1:
                with suppress(InvalidStateError):  # it was given up meanwhile
                    jobs[0].future.set_exception(error)
            else:
                for job in jobs:
                    self._dispatch([job], reason)
            return
        seconds = time.monotonic() - started
        self.learn(jobs[0].key, len(jobs), seconds)
        oldest = min(job.arrived for job in jobs)
        self._observe(Run(len(jobs), seconds, reason, started - oldest))
        for job, result in zip(jobs, results, strict=True):
            with suppress(InvalidStateError):
                job.future.set_result(result)


def _late() -> DeadlinePassed:
    return DeadlinePassed(
        "The device was busy past the deadline.", remedy="Treat the part as not inspected."
    )


def _full(waiting: int, wait_s: float) -> QueueFull:
    refused = QueueFull(
        f"{waiting} images are waiting for the device already.",
        remedy="Send it again a little later, or send fewer at once.",
    )
    refused.retry_after_s = max(1, math.ceil(wait_s))
    return refused
