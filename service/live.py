"""What is inspected, as it happens: the newest results, and everybody who watches them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from service.schemas import LineError
from service.store.tables import Inspection

KEPT = 1000  # events; who has been away for more of them begins anew


@dataclass(frozen=True)
class Event:
    """One thing that happened; `id` is where a watcher who lost the connection goes on."""

    id: str
    recipe: str | None
    content: Inspection | LineError | None  # None: some events are missing here


class Live:
    """The newest events in the order in which they happened.

    A watcher reads from what is kept, at its own pace: one that is too slow, or was away for too
    long, is told so and goes on with what is newest. All on the event loop.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._ids: set[str] = set()  # theirs
        self._total = 0  # events so far, and so the number of the next one
        self._news = asyncio.Event()
        self._closed = False

    def begin(self, events: Iterable[Event]) -> None:
        """Start with what happened before, the oldest first."""
        for event in events:
            self._add(event)

    def tell(self, event: Event) -> bool:
        """One more has happened; whether that was not known yet."""
        if event.id in self._ids:
            return False
        self._add(event)
        self._wake()
        return True

    @property
    def ids(self) -> frozenset[str]:
        """Of the events that are kept."""
        return frozenset(self._ids)

    def close(self) -> None:
        """End all watching, so that a server can end."""
        self._closed = True
        self._wake()

    async def follow(self, after: str | None) -> AsyncIterator[Event]:
        """Every event after the one with the id `after`, or from now on.

        One without content stands where some are missing: also at the beginning, so that who
        asks for what was before it misses none in between.
        """
        number = None if after is None else self._number_after(after)
        while not self._closed:
            first = self._total - len(self._events)
            if number is None or number < first:
                number = self._total  # before anybody is told: what comes meanwhile is not missing
                yield self._reset()
            elif number < self._total:
                event = self._events[number - first]
                number += 1
                yield event
            else:
                await self._news.wait()

    def _add(self, event: Event) -> None:
        if len(self._events) == KEPT:
            self._ids.discard(self._events.popleft().id)
        self._events.append(event)
        self._ids.add(event.id)
        self._total += 1

    def _number_after(self, id: str) -> int | None:
        for back, event in enumerate(reversed(self._events)):
            if event.id == id:
                return self._total - back
        return None

    def _reset(self) -> Event:
        return Event(self._events[-1].id if self._events else "", None, None)

    def _wake(self) -> None:
        waiting, self._news = self._news, asyncio.Event()
        waiting.set()
