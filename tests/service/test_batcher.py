import gc
import threading
import time
import weakref
from collections.abc import Sequence

import numpy as np
import pytest

from service.batcher import Batcher, Run
from service.errors import DeadlinePassed, NotReady, QueueFull
from service.service_time import ServiceTime

FAR = 1e12


class Model(str):
    """What items are run by; unlike a plain string, it can be held weakly."""

    __slots__ = ("__weakref__",)


A, B = Model("a"), Model("b")


class Device:
    """Doubles numbers; waits for `free` before each run, and fails on a 13."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[tuple[Model, list[int]]] = []
        self.runs: list[Run] = []

    def run(self, key: Model, items: Sequence[int]) -> list[int]:
        self.entered.release()
        self.free.wait(10)
        self.batches.append((key, list(items)))
        if 13 in items:
            raise ArithmeticError("thirteen")
        return [2 * item for item in items]


@pytest.fixture
def device():
    return Device()


@pytest.fixture
def batcher(device):
    batcher = Batcher(device.run, max_queue=4, max_batch=3, observe=device.runs.append)
    yield batcher
    device.free.set()
    batcher.close()


def occupy(batcher, device, key=A):
    """Put the device to work, so that what is submitted next has to wait."""
    future = batcher.submit(key, 0, deadline=FAR)
    assert device.entered.acquire(timeout=60)
    return future


def test_a_free_device_takes_a_single_item_at_once(batcher, device):
    device.free.set()
    assert batcher.submit(A, 4, deadline=FAR).result(60) == 8
    assert device.batches == [("a", [4])]


def test_what_waited_runs_together_by_key_and_in_order(batcher, device):
    occupy(batcher, device)
    futures = [batcher.submit(key, n, deadline=FAR) for key, n in
               [(A, 1), (B, 2), (A, 3), (B, 4)]]  # fmt: skip
    device.free.set()
    assert [future.result(60) for future in futures] == [2, 4, 6, 8]
    assert device.batches == [("a", [0]), ("a", [1, 3]), ("b", [2, 4])]


def test_a_batch_is_bounded(batcher, device):
    occupy(batcher, device)
    futures = [batcher.submit(A, n, deadline=FAR) for n in range(1, 5)]
    device.free.set()
    assert [future.result(60) for future in futures] == [2, 4, 6, 8]
    assert [len(items) for _, items in device.batches] == [1, 3, 1]


def test_a_full_queue_refuses_at_once(batcher, device):
    occupy(batcher, device)
    for n in range(4):
        batcher.submit(A, n, deadline=FAR)
    with pytest.raises(QueueFull) as refused:
        batcher.submit(A, 5, deadline=FAR)
    assert refused.value.retryable


def test_a_failing_item_fails_alone(batcher, device):
    occupy(batcher, device)
    futures = [batcher.submit(A, n, deadline=FAR) for n in (1, 13, 3)]
    device.free.set()
    assert futures[0].result(60) == 2
    with pytest.raises(ArithmeticError):
        futures[1].result(60)
    assert futures[2].result(60) == 6


def test_what_is_cancelled_or_late_never_reaches_the_device(batcher, device):
    occupy(batcher, device)
    cancelled = batcher.submit(A, 1, deadline=FAR)
    soon = time.monotonic() + 0.05
    late = batcher.submit(A, 2, deadline=soon)
    kept = batcher.submit(A, 3, deadline=FAR)
    assert batcher.depth == 3
    assert cancelled.cancel()
    assert batcher.depth == 2  # nobody waits for it any more
    while time.monotonic() <= soon:
        pass
    device.free.set()
    assert kept.result(60) == 6
    with pytest.raises(DeadlinePassed):
        late.result(60)
    with pytest.raises(DeadlinePassed):
        batcher.submit(A, 4, deadline=soon)
    assert device.batches == [("a", [0]), ("a", [3])]


def test_closing_answers_what_waits_and_refuses_what_comes(batcher, device):
    first = occupy(batcher, device)
    second = batcher.submit(A, 1, deadline=FAR)
    closer = threading.Thread(target=batcher.close)
    closer.start()
    with pytest.raises(NotReady):
        while True:
            batcher.submit(A, 2, deadline=FAR)
            time.sleep(0)
    device.free.set()
    closer.join(10)
    assert first.result(60) == 0
    assert second.result(60) == 2


def test_line_cameras_go_first_and_bulk_still_advances(device):
    batcher = Batcher(device.run, max_queue=9, max_batch=1, bulk_age_s=0.05)
    occupy(batcher, device)
    bulk = batcher.submit(A, 1, deadline=FAR, priority="bulk")
    early = batcher.submit(A, 2, deadline=FAR)
    while batcher.age <= 0.1:
        pass
    late = batcher.submit(A, 3, deadline=FAR)
    device.free.set()
    assert [future.result(60) for future in (bulk, early, late)] == [2, 4, 6]
    assert [items for _, items in device.batches] == [[0], [2], [1], [3]]
    batcher.close()


def test_a_line_camera_takes_the_room_of_the_newest_bulk_item(batcher, device):
    occupy(batcher, device)
    bulk = [batcher.submit(A, n, deadline=FAR, priority="bulk") for n in range(1, 5)]
    with pytest.raises(QueueFull):
        batcher.submit(A, 5, deadline=FAR, priority="bulk")
    line = batcher.submit(A, 6, deadline=FAR)
    with pytest.raises(QueueFull):
        bulk[3].result(60)
    device.free.set()
    assert line.result(60) == 12
    assert [future.result(60) for future in bulk[:3]] == [2, 4, 6]
    assert device.batches[1] == (A, [6, 1, 2])


def test_what_is_first_goes_before_all_and_has_room_in_a_full_queue(batcher, device):
    running = occupy(batcher, device)
    waiting = [batcher.submit(A, item, deadline=FAR) for item in range(1, 5)]
    first = batcher.submit(B, 5, deadline=FAR, priority="first")
    device.free.set()
    assert [future.result(60) for future in (running, *waiting, first)] == [0, 2, 4, 6, 8, 10]
    assert [key for key, _ in device.batches] == [A, B, A, A]


def test_whoever_waits_for_a_device_that_is_given_up_is_told_at_once(batcher, device):
    running = occupy(batcher, device)
    waiting = [batcher.submit(A, item, deadline=FAR) for item in range(1, 3)]
    batcher.give_up(ZeroDivisionError("lost"))
    for future in (running, *waiting):
        with pytest.raises(ZeroDivisionError):
            future.result(0)
    with pytest.raises(NotReady):
        batcher.submit(A, 3, deadline=FAR)
    device.free.set()  # a run that ends after all does no harm
    batcher.close()
    assert device.batches == [(A, [0])]


def test_what_cannot_be_in_time_is_refused_at_once_with_when_to_come_again(batcher, device):
    for count in (1, 3):
        batcher.learn(A, count, 1.5 + 0.5 * count)
    occupy(batcher, device)
    now = time.monotonic()
    batcher.submit(A, 1, deadline=now + 60)  # done in 2 + 2 s, as far as is known
    batcher.submit(A, 2, deadline=now + 60)
    with pytest.raises(QueueFull) as refused:
        batcher.submit(A, 3, deadline=now + 4.5)  # the three together take 3 s
    assert refused.value.retry_after_s == 5
    batcher.submit(A, 3, deadline=now + 5.5)


def test_a_batch_does_not_grow_past_the_deadline_of_one_of_it(batcher, device):
    for count in (1, 3):
        batcher.learn(A, count, 10.0 * count)
    occupy(batcher, device, B)
    now = time.monotonic()
    futures = [batcher.submit(A, 1, deadline=now + 25)] + [
        batcher.submit(A, n, deadline=now + 95) for n in (2, 3)
    ]
    device.free.set()
    assert [future.result(60) for future in futures] == [2, 4, 6]
    assert [items for _, items in device.batches] == [[0], [1, 2], [3]]


def test_an_estimate_that_was_too_high_is_mended(batcher, device):
    device.free.set()
    batcher.learn(A, 1, 1000.0)
    for _ in range(200):
        batcher.submit(A, 1, deadline=time.monotonic() + 60).result(60)
    assert len(device.batches) == 200
    occupied = batcher.submit(A, 1, deadline=time.monotonic() + 60)
    batcher.submit(A, 2, deadline=time.monotonic() + 60).result(60)
    occupied.result(60)


def test_a_batch_waits_for_company_no_longer_than_its_oldest_may(device):
    device.free.set()
    batcher = Batcher(
        device.run, max_queue=9, max_batch=3, linger_s=0.2, observe=device.runs.append
    )
    started = time.monotonic()
    batcher.submit(A, 1, deadline=FAR).result(60)
    assert time.monotonic() - started >= 0.2
    futures = [batcher.submit(A, n, deadline=FAR) for n in (1, 2, 3)]
    assert [future.result(60) for future in futures] == [2, 4, 6]
    assert [(run.size, run.reason) for run in device.runs] == [(1, "aged"), (3, "full")]
    batcher.close()
    patient = Batcher(device.run, max_queue=9, max_batch=3, linger_s=600)
    assert patient.submit(A, 1, deadline=time.monotonic() + 2).result(60) == 2
    patient.close()


def test_why_a_batch_was_closed_is_told(batcher, device):
    futures = [occupy(batcher, device)]
    futures += [batcher.submit(A, n, deadline=FAR) for n in range(1, 5)]
    assert batcher.running_s > 0
    device.free.set()
    for future in futures:
        future.result(60)
    assert [(run.size, run.reason) for run in device.runs] == [
        (1, "idle"),
        (3, "full"),
        (1, "free"),
    ]
    assert all(run.seconds >= 0 and run.waited_s >= 0 for run in device.runs)


def test_a_keys_times_go_with_it(batcher, device):
    device.free.set()
    mine = Model("mine")
    batcher.submit(mine, 1, deadline=FAR).result(60)
    gone = weakref.ref(mine)
    del mine
    device.batches.clear()
    batcher.submit(A, 1, deadline=FAR).result(60)  # its thread has let go of what it ran
    gc.collect()
    assert gone() is None


def test_a_straight_line_is_found_through_noise():
    rng = np.random.default_rng(0)
    times = ServiceTime()
    assert times.of(8) == 0
    times.learn(1, 0.010)
    assert times.of(4) == pytest.approx(0.040)  # nothing else is known
    for count in rng.integers(1, 9, 200):
        times.learn(int(count), 0.004 + 0.002 * count + rng.normal(0, 0.0005))
    assert times.of(1) == pytest.approx(0.006, abs=0.0006)
    assert times.of(8) == pytest.approx(0.020, abs=0.0006)
    for count in rng.integers(1, 9, 200):
        times.learn(int(count), 0.001 * count)  # the device has become faster
    assert times.of(8) == pytest.approx(0.008, rel=0.01)


def test_a_fit_never_says_that_more_is_cheaper_or_that_nothing_costs():
    times = ServiceTime()
    times.learn(1, 0.1)
    times.learn(8, 0.05)
    assert 0 < times.of(1) <= times.of(8)
    times = ServiceTime()
    times.learn(2, 0.01)
    times.learn(8, 0.1)
    assert times.of(1) > 0


def test_lanes_run_at_the_same_time_and_share_what_waits():
    both = threading.Barrier(2, timeout=60)
    batches = []

    def run(key, items):
        both.wait()  # passes only where two runs are under way at once
        batches.append(list(items))
        return items

    batcher = Batcher(run, max_queue=9, max_batch=4, lanes=2)
    futures = [batcher.submit(A, item, deadline=FAR) for item in range(2)]
    assert [future.result(60) for future in futures] == [0, 1]
    assert sorted(batches) == [[0], [1]]
    assert batcher.at_once == 8
    batcher.close()


def test_several_lanes_are_expected_to_be_through_sooner(device):
    batcher = Batcher(device.run, max_queue=9, max_batch=1, lanes=2)
    batcher.learn(A, 1, 10.0)
    futures = [batcher.submit(A, item, deadline=FAR) for item in range(4)]
    for _ in range(2):
        assert device.entered.acquire(timeout=60)
    now = time.monotonic()
    with pytest.raises(QueueFull):  # 20 s of work are under way, 20 wait, and 10 are its own
        batcher.submit(A, 4, deadline=now + 24)
    futures.append(batcher.submit(A, 4, deadline=now + 26))
    device.free.set()
    assert [future.result(60) for future in futures] == [0, 2, 4, 6, 8]
    batcher.close()
