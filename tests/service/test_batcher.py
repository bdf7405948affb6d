import threading
import time
from collections.abc import Sequence

import pytest

from service.batcher import Batcher
from service.errors import DeadlinePassed, NotReady, QueueFull

FAR = 1e12


class Device:
    """Doubles numbers; waits for `free` before each run, and fails on a 13."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[tuple[str, list[int]]] = []

    def run(self, key: str, items: Sequence[int]) -> list[int]:
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
    batcher = Batcher(device.run, max_queue=4, max_batch=3)
    yield batcher
    device.free.set()
    batcher.close()


def occupy(batcher, device):
    """Put the device to work, so that what is submitted next has to wait."""
    future = batcher.submit("a", 0, deadline=FAR)
    assert device.entered.acquire(timeout=10)
    return future


def test_a_free_device_takes_a_single_item_at_once(batcher, device):
    device.free.set()
    assert batcher.submit("a", 4, deadline=FAR).result(10) == 8
    assert device.batches == [("a", [4])]


def test_what_waited_runs_together_by_key_and_in_order(batcher, device):
    occupy(batcher, device)
    futures = [batcher.submit(key, n, deadline=FAR) for key, n in
               [("a", 1), ("b", 2), ("a", 3), ("b", 4)]]  # fmt: skip
    device.free.set()
    assert [future.result(10) for future in futures] == [2, 4, 6, 8]
    assert device.batches == [("a", [0]), ("a", [1, 3]), ("b", [2, 4])]


def test_a_batch_is_bounded(batcher, device):
    occupy(batcher, device)
    futures = [batcher.submit("a", n, deadline=FAR) for n in range(1, 5)]
    device.free.set()
    assert [future.result(10) for future in futures] == [2, 4, 6, 8]
    assert [len(items) for _, items in device.batches] == [1, 3, 1]


def test_a_full_queue_refuses_at_once(batcher, device):
    occupy(batcher, device)
    for n in range(4):
        batcher.submit("a", n, deadline=FAR)
    with pytest.raises(QueueFull) as refused:
        batcher.submit("a", 5, deadline=FAR)
    assert refused.value.retryable


def test_a_failing_item_fails_alone(batcher, device):
    occupy(batcher, device)
    futures = [batcher.submit("a", n, deadline=FAR) for n in (1, 13, 3)]
    device.free.set()
    assert futures[0].result(10) == 2
    with pytest.raises(ArithmeticError):
        futures[1].result(10)
    assert futures[2].result(10) == 6


def test_what_is_cancelled_or_late_never_reaches_the_device(batcher, device):
    occupy(batcher, device)
    cancelled = batcher.submit("a", 1, deadline=FAR)
    late = batcher.submit("a", 2, deadline=time.monotonic() - 1)
    kept = batcher.submit("a", 3, deadline=FAR)
    assert batcher.depth == 3
    assert cancelled.cancel()
    assert batcher.depth == 2  # nobody waits for it any more
    device.free.set()
    assert kept.result(10) == 6
    with pytest.raises(DeadlinePassed):
        late.result(10)
    assert device.batches == [("a", [0]), ("a", [3])]


def test_closing_answers_what_waits_and_refuses_what_comes(batcher, device):
    first = occupy(batcher, device)
    second = batcher.submit("a", 1, deadline=FAR)
    closer = threading.Thread(target=batcher.close)
    closer.start()
    with pytest.raises(NotReady):
        while True:
            batcher.submit("a", 2, deadline=FAR)
            time.sleep(0)
    device.free.set()
    closer.join(10)
    assert first.result(10) == 0
    assert second.result(10) == 2
