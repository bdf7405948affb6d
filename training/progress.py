"""What long work shows: a bar with the time left, and lines of text. Silent by default."""

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
