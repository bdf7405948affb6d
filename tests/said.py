"""A reporter that keeps what it is told."""

from training.progress import Reporter


class Said(Reporter):
    """`lines` are what was said, one after the other."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)
