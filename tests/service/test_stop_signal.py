import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from service.stop_signal import stop_on_signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_who_waits(number: signal.Signals) -> None:
    stop = stop_on_signals()
    assert not stop.is_set()
    signal.raise_signal(number)
    assert stop.wait(10)


def test_a_signal_that_arrives_while_the_event_is_locked_stops_who_waits() -> None:
    stop = stop_on_signals()

    def raise_inside(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is threading.Condition.wait.__code__:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGTERM)

    # A handler that waits for the lock would wait here for ever: the alarm ends the test.
    signal.signal(signal.SIGALRM, _fail)
    signal.alarm(20)
    sys.setprofile(raise_inside)
    try:
        assert stop.wait(10)
    finally:
        sys.setprofile(None)
        signal.alarm(0)


def _fail(*_: object) -> None:
    pytest.fail("The handler waits for a lock that its own thread holds.")
