"""The process itself: a thread that asks for results, and one for each receiver and each folder."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import structlog

from service.connectors.feeder import Feeder
from service.connectors.metrics import ConnectMetrics
from service.connectors.outbox import Outbox
from service.connectors.receiver import Receiver
from service.connectors.settings import ConnectSettings, MetricsSettings
from service.settings import SettingsError

log = structlog.get_logger()


def connect(settings: ConnectSettings, stop: threading.Event) -> None:
    """Pass results on until told to stop. Raises SettingsError and OutboxHeld."""
    receivers, folders = settings.receivers(), settings.folders()
    if not receivers and not folders:
        raise SettingsError(
            "There is nothing to connect.",
            remedy="Name an [[mqtt]], an [[opcua]], a [[webhook]] or a [[folder]].",
        )
    outbox = Outbox(settings.outbox)
    with ExitStack() as held:
        held.enter_context(outbox.held())
        _tell_of_the_forgotten(outbox, receivers)
        kizu = held.enter_context(settings.service.client())
        feeder = Feeder(kizu, outbox, receivers) if receivers else None
        if at := settings.metrics:
            metrics = ConnectMetrics(outbox, feeder, receivers, folders)
            held.enter_context(_served(metrics, at))
        tasks: list[Callable[[], None]] = [partial(one.run, kizu, stop) for one in folders]
        tasks += [partial(one.run, outbox, stop) for one in receivers]
        if feeder:
            tasks.append(partial(feeder.run, stop))
        with ThreadPoolExecutor(len(tasks), thread_name_prefix="kizu-connect") as threads:
            running = [threads.submit(_until_one_ends, task, stop, outbox) for task in tasks]
        for one in running:
            one.result()


def forget(settings: ConnectSettings, receiver: str) -> int:
    """Throw away what waits for a receiver that is no longer named; how much that was. Raises
    SettingsError and OutboxHeld."""
    if any(one.name == receiver for one in settings.receivers()):
        raise SettingsError(
            f"{receiver} is to have what waits for it.", remedy="Take it out of the file first."
        )
    outbox = Outbox(settings.outbox)
    with outbox.held():
        return outbox.forget(receiver)


def _tell_of_the_forgotten(outbox: Outbox, receivers: Sequence[Receiver]) -> None:
    named = {one.name for one in receivers}
    for receiver, waiting in outbox.waiting().items():
        if receiver not in named:
            remedy = f"Name it again, or: kizu connect FILE --forget {receiver}"
            log.warning("results wait for who is no longer named", receiver=receiver,
                        waiting=waiting, remedy=remedy)  # fmt: skip


@contextmanager
def _served(metrics: ConnectMetrics, at: MetricsSettings) -> Iterator[None]:
    with ExitStack() as held:
        try:
            port = held.enter_context(metrics.served(at.host, at.port))
        except OSError as error:
            raise SettingsError(
                f"Nobody can be answered at {at.host}:{at.port}: {error}.",
                remedy="Name another [metrics] host or port.",
            ) from error
        log.info("metrics are served", host=at.host, port=port)
        yield


def _until_one_ends(task: Callable[[], None], stop: threading.Event, outbox: Outbox) -> None:
    """One that fails ends the process, which whatever started it starts again: without it, the
    others would go on and nobody would know."""
    try:
        task()
    finally:
        stop.set()
        outbox.wake()
