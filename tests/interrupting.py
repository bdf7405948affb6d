"""A reporter that presses Ctrl-C in the middle of a bar."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from training.progress import Advance, Reporter


class InterruptingReporter(Reporter):
    """In the bar of this title, at so many steps done; `steps` are those that `title` came to."""

    def __init__(self, at: int, title: str = "Training") -> None:
        self._at = at
        self._title = title
        self.steps: list[int] = []

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        def advance(done: int, note: str) -> None:
            if title == self._title:
                self.steps.append(done)
                if done == self._at:
                    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
                        raise KeyboardInterrupt  # a shell's background processes never get it
                    os.kill(os.getpid(), signal.SIGINT)

        yield advance
