"""When shifts begin, by the clock on the wall of the plant."""

from dataclasses import dataclass
from datetime import datetime, time, timedelta

from models.errors import KizuError


class ShiftsError(KizuError):
    """Shifts that cannot be read."""


@dataclass(frozen=True)
class Shift:
    """From `since` until `until`."""

    since: datetime
    until: datetime


class Shifts:
    """Of a day: the times at which they begin, such as `06:00,14:00,22:00`."""

    def __init__(self, text: str) -> None:
        """Raises ShiftsError."""
        try:
            begins = {time.fromisoformat(item.strip()) for item in text.split(",")}
        except ValueError as error:
            raise ShiftsError(
                f"KIZU_SHIFTS {text!r} does not say when shifts begin.",
                remedy="Write times of day, such as 06:00,14:00,22:00.",
            ) from error
        self._begins = sorted(begins)

    def at(self, moment: datetime) -> Shift:
        """The shift at an aware time, in whose time zone the shifts begin."""
        days = (moment.date() + timedelta(days=shift) for shift in (-1, 0, 1))
        # The wall clock decides: where it was turned on between two shifts, one is shorter.
        starts = [
            datetime.combine(day, begin, moment.tzinfo) for day in days for begin in self._begins
        ]
        return Shift(
            since=max(start for start in starts if start <= moment),
            until=min(start for start in starts if start > moment),
        )
