"""Somebody who is to have results: what all kinds of them have in common."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

import structlog

from models.errors import KizuError
from service.connectors.outbox import Message, Outbox
from service.schemas import InspectionResult

log = structlog.get_logger()

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_IDLE_S = 5.0


class NotReceived(KizuError):
    """A receiver that did not say that it has a message."""


class Receiver(ABC):
    """One of them, by the name that its messages are kept under."""

    at_once = 1  # messages that are sent before an answer is waited for

    def __init__(
        self, name: str, *, recipes: Sequence[str] = (), verdicts: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.received = 0  # since it began
        self._recipes = frozenset(recipes)
        self._verdicts = frozenset(verdicts)

    def wants(self, result: InspectionResult) -> bool:
        """Whether it is to have a result."""
        return not (
            (self._recipes and result.recipe_id not in self._recipes)
            or (self._verdicts and result.verdict not in self._verdicts)
        )

    @abstractmethod
    def send(self, messages: Sequence[Message]) -> None:
        """Returns once it has them all. Raises NotReceived."""

    @abstractmethod
    def attend(self) -> None:
        """Nothing is to be sent now. Raises NotReceived where something could not be."""

    @abstractmethod
    def close(self) -> None:
        """There will be no more."""

    def run(self, outbox: Outbox, stop: threading.Event) -> None:
        """Send what waits, in its order, and again for as long as it is not received: nothing is
        passed over, since a later message could be taken for an earlier one's end."""
        wait = _FIRST_WAIT_S
        failing = False
        while not stop.is_set():
            edition = outbox.edition
            messages = outbox.oldest(self.name, self.at_once)
            try:
                if messages:
                    self.send(messages)
                else:
                    self.attend()
            except NotReceived as error:
                if not failing:
                    log.warning("not received", receiver=self.name, error=str(error))
                failing = True
                stop.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT_S)
                continue
            if failing:
                log.info("received again", receiver=self.name)
            failing, wait = False, _FIRST_WAIT_S
            if messages:
                outbox.sent(messages)
                self.received += len(messages)
            else:
                outbox.wait(edition, _IDLE_S)
        self.close()
