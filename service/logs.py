"""Structured logs: one JSON object a line on standard error, readable columns on a terminal."""

import atexit
import json
import logging
import queue
import sys
import threading
from functools import cache
from typing import TextIO

import structlog

_MOST = 10_000  # lines that wait to be written


class LineWriter:
    """Writes lines from a thread of its own, so that nobody who logs waits for who reads them,
    such as a pipe that is full. Above a bound, lines are dropped, and how many is said."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._loop, name="kizu-log", daemon=True)
        self._thread.start()

    def msg(self, line: str) -> None:
        """Have a line written soon."""
        if self._lines.qsize() < _MOST:
            self._lines.put(line)
        else:
            self._dropped += 1

    debug = info = warning = error = critical = msg  # the names by which structlog calls

    def close(self) -> None:
        """Write what waits, for a second at most."""
        self._lines.put(None)
        self._thread.join(1)

    def _loop(self) -> None:
        while True:
            lines = [self._lines.get()]
            while not self._lines.empty():
                lines.append(self._lines.get())
            dropped, self._dropped = self._dropped, 0
            if dropped:
                lines.insert(0, json.dumps({"event": "log lines dropped", "number": dropped}))
            text = "".join(f"{line}\n" for line in lines if line is not None)
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                return  # nobody is left to read, or to be told
            if None in lines:
                return


@cache
def _writer(stream: TextIO) -> LineWriter:
    writer = LineWriter(stream)
    atexit.register(writer.close)
    return writer


def _plain(
    logger: object, method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """What senders wrote must not command the terminal; an exception has lines of its own."""
    for name, value in line.items():
        if name != "exception" and isinstance(value, str) and not value.isprintable():
            line[name] = ascii(value)
    return line


@cache
def configure_logging() -> None:
    """Set up structlog, and let the standard library's warnings through it unchanged.

    Once in a process: a logger keeps the processors of its first line, so a second set would be for
    some of them alone.
    """
    renderers: list[structlog.typing.Processor] = (
        [_plain, structlog.dev.ConsoleRenderer()]
        if sys.stderr.isatty()
        else [structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        logger_factory=lambda *_: _writer(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
