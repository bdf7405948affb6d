"""Who logs never waits for who reads."""

import contextlib
import json
import os
import threading

import structlog
from structlog.testing import capture_logs

from service.logs import LineWriter, configure_logging

LINES = 30_000


def test_a_reader_that_sleeps_stops_nobody_and_is_told_what_it_missed():
    read, write = os.pipe()
    with os.fdopen(read) as reader:
        seen = []
        stream = os.fdopen(write, "w")
        writer = LineWriter(stream)
        for number in range(LINES):  # far more than a pipe holds: this would never end
            writer.msg(f"line {number}")
        reading = threading.Thread(target=lambda: seen.extend(reader))
        reading.start()
        writer.close()
        stream.close()
        reading.join(30)
    dropped = [json.loads(line)["number"] for line in seen if "dropped" in line]
    written = [line for line in seen if "dropped" not in line]
    assert written[0] == "line 0\n"
    assert sum(dropped) > 0
    assert len(written) + sum(dropped) == LINES


def test_what_was_logged_is_written_at_the_end(tmp_path):
    with (tmp_path / "log").open("w") as stream:
        writer = LineWriter(stream)
        for number in range(100):
            writer.msg(f"line {number}")
        writer.close()
    assert (tmp_path / "log").read_text().splitlines() == [f"line {i}" for i in range(100)]


def test_a_reader_that_is_gone_harms_nobody():
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    writer = LineWriter(stream)
    writer.msg("line")
    writer.close()
    writer.msg("another")
    with contextlib.suppress(BrokenPipeError):  # of what was left in its buffer
        stream.close()


def test_a_logger_that_has_spoken_is_heard_after_another_command_set_logging_up():
    configure_logging()
    log = structlog.get_logger()
    log.info("first")  # it keeps what it was given for this
    configure_logging()
    with capture_logs() as lines:
        log.info("second")
    assert [line["event"] for line in lines] == ["second"]
