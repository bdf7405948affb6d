"""Takes new results out of the service and puts them into the outbox."""

import threading
from collections.abc import Sequence

import structlog

from service.client import Kizu, NoAnswer, Refused
from service.connectors.outbox import Letter, Outbox
from service.connectors.receiver import Receiver
from service.schemas import InspectionResult

log = structlog.get_logger()

LOOK_S = 0.5
# So many numbers are read again: of those that are entered at once, one with a smaller number can
# be seen a moment after one with a greater.
OVERLAP = 100
# And without anything new, after so many looks; then it may be another database, too.
_IDLE_LOOKS = 20


class Feeder:
    """Follows the feed of a service, from where it was the last time."""

    def __init__(self, kizu: Kizu, outbox: Outbox, receivers: Sequence[Receiver]) -> None:
        self._kizu = kizu
        self._outbox = outbox
        self._receivers = receivers
        self.away = False  # the service

    def run(self, stop: threading.Event) -> None:
        """Until it is told to stop. A service that is away is asked again."""
        looks = 0
        while not stop.wait(LOOK_S):
            try:
                found = self.look(thorough=looks % _IDLE_LOOKS == 0)
            except (NoAnswer, Refused) as error:
                if not self.away:
                    log.warning("the service cannot be asked", error=str(error))
                self.away = True
                continue
            if self.away:
                log.info("the service answers again")
                self.away = False
            looks = 0 if found else looks + 1

    def look(self, *, thorough: bool = True) -> int:
        """Take in what is new; how many that were. Raises NoAnswer and Refused."""
        after = self._outbox.after
        if after is None:
            return self._begin()
        if not thorough and not self._kizu.read_feed(after=after, limit=1).items:
            return 0
        if thorough and (newest := self._kizu.read_feed().next) < after:
            # Restored from a backup: what is entered now has numbers that were here before.
            log.warning("the service's numbers begin anew", was=after, now=newest)
            after = newest
            self._outbox.take_in([], after)
        total, start = 0, max(0, after - OVERLAP)
        while True:
            page = self._kizu.read_feed(after=start)
            if not page.items:
                return total
            start = page.next
            total += self._outbox.take_in(
                [self._letter(one) for one in page.items], max(start, after)
            )

    def _begin(self) -> int:
        """From now on: what was before, nobody has asked to be passed on."""
        now = self._kizu.read_feed().next
        known = self._kizu.read_feed(after=max(0, now - OVERLAP), limit=OVERLAP)
        self._outbox.take_in([Letter(one.id, "", ()) for one in known.items], max(now, known.next))
        return 0

    def _letter(self, result: InspectionResult) -> Letter:
        receivers = tuple(one.name for one in self._receivers if one.wants(result))
        return Letter(result.id, result.model_dump_json(), receivers)
