"""What long work shows: a bar with the time left, and lines of text. Silent by default."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int, str], None]


class Reporter:
    """Says nothing; what tests and libraries use."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Show the way to `total`; the yielded call takes how far it is, and a note."""
        yield lambda done, note: None

    def say(self, text: str) -> None:
        """Show a line."""


class TerminalReporter(Reporter):
    """Draws on the terminal with rich; where there is none, it prints each bar's end only."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(title, total=total, note="")
            yield lambda done, note: progress.update(task, completed=done, note=note)

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)


class JsonReporter(Reporter):
    """Writes a JSON object a line to the standard error, for a program that shows it elsewhere.

    `{"bar": title, "done": n, "total": n, "note": text}`, at most five a second, and
    `{"say": text}`.
    """

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        due = 0.0

        def advance(done: int, note: str) -> None:
            nonlocal due
            now = time.monotonic()
            if now >= due or done == total:
                due = now + 0.2
                self._write({"bar": title, "done": done, "total": total, "note": note})

        self._write({"bar": title, "done": 0, "total": total, "note": ""})
        yield advance

    def say(self, text: str) -> None:
        self._write({"say": text})

    def _write(self, line: dict[str, object]) -> None:
        print(json.dumps(line), file=sys.stderr, flush=True)


def reporter() -> Reporter:
    """What `KIZU_PROGRESS` asks for: `json`, or by default a terminal's bars."""
    return JsonReporter() if os.environ.get("KIZU_PROGRESS") == "json" else TerminalReporter()
