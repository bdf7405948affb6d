"""How long one more image would take, by how fast others are done."""

from collections import deque
from contextlib import ExitStack

import pytest

from service.pace import Pace


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Line:
    """Images under way, of which the oldest has its verdict first."""

    def __init__(self, at_once=2):
        self.clock = Clock()
        self.pace = Pace(at_once, clock=self.clock)
        self._ways = deque()

    def send(self, count=1):
        for _ in range(count):
            stack = ExitStack()
            self._ways.append((stack, stack.enter_context(self.pace.one())))

    def finish(self, after_s):
        self.clock.now += after_s
        stack, way = self._ways.popleft()
        self.pace.done(way)
        stack.close()

    def keep_busy(self, intervals, *, times=50):
        for _ in range(times):
            for interval in intervals:
                self.finish(interval)
                self.send()


@pytest.fixture
def line():
    return Line()


def test_before_anything_is_known_nobody_is_kept_out(line):
    line.send(100)
    assert line.pace.within_s == 0


def test_one_more_takes_as_long_as_those_before_it_and_itself(line):
    line.send(8)
    line.keep_busy([0.02])
    assert line.pace.within_s == pytest.approx(9 * 0.02)


def test_who_need_not_wait_is_never_kept_out(line):
    line.send(8)
    line.keep_busy([0.02])
    for _ in range(7):
        line.finish(0.02)
    assert line.pace.under_way == 1
    assert line.pace.within_s == 0


def test_what_varies_is_expected_to_take_longer(line):
    line.send(8)
    line.keep_busy([0.0, 0.0, 0.0, 0.08])
    assert line.pace.within_s > 1.1 * 9 * 0.02


def test_a_pause_is_not_taken_for_slowness(line):
    line.send(8)
    line.keep_busy([0.02])
    for _ in range(8):
        line.finish(0.02)
    line.clock.now += 1000
    line.send(8)
    line.keep_busy([0.02], times=4)
    assert line.pace.within_s == pytest.approx(9 * 0.02)


def test_a_device_that_slows_down_is_noticed(line):
    line.send(8)
    line.keep_busy([0.02])
    line.keep_busy([0.04], times=100)
    assert line.pace.within_s == pytest.approx(9 * 0.04, rel=0.05)


def test_a_disk_that_stalls_at_the_start_is_no_pace(line):
    line.send(12)
    line.keep_busy([0.02, 1.3], times=1)
    assert line.pace.within_s == 0
    line.keep_busy([0.02], times=2)
    assert line.pace.within_s == pytest.approx(13 * (1.3 + 0.02 + 0.02) / 3)
    line.keep_busy([0.02], times=100)
    assert line.pace.within_s < 1


def test_what_fails_ends_its_way_and_tells_nothing(line):
    line.send(3)
    with pytest.raises(ValueError, match="broken"), line.pace.one():
        line.clock.now += 50
        raise ValueError("broken")
    assert line.pace.under_way == 3
    line.keep_busy([0.02])
    assert line.pace.within_s == pytest.approx(4 * 0.02)


def test_an_estimate_that_keeps_everybody_out_is_forgotten(line):
    line.send(8)
    line.keep_busy([0.5])  # something else had the cores
    for _ in range(6):
        line.finish(0.02)
    assert line.pace.within_s > 1  # of two, which never tell how fast a third would be
    for _ in range(500):
        line.finish(0.02)
        line.send()
    assert line.pace.within_s == 0
    line.send(6)
    line.keep_busy([0.02])
    assert line.pace.within_s == pytest.approx(9 * 0.02)
