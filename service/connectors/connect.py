"""The process itself: a thread that asks for results, and one for each receiver and each folder."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from service.client import Kizu
from service.connectors.feeder import Feeder
from service.connectors.outbox import Outbox
from service.connectors.settings import ConnectSettings
from service.settings import SettingsError


def connect(settings: ConnectSettings, stop: threading.Event) -> None:
    """Pass results on until told to stop. Raises SettingsError."""
    receivers, folders = settings.receivers(), settings.folders()
    if not receivers and not folders:
        raise SettingsError(
            "There is nothing to connect.",
            remedy="Name an [[mqtt]], a [[webhook]] or a [[folder]].",
        )
    outbox = Outbox(settings.outbox)
    with Kizu(settings.service.url, key=settings.key) as kizu:
        tasks: list[Callable[[], None]] = [partial(one.run, kizu, stop) for one in folders]
        tasks += [partial(one.run, outbox, stop) for one in receivers]
        if receivers:
            tasks.append(partial(Feeder(kizu, outbox, receivers).run, stop))
        with ThreadPoolExecutor(len(tasks), thread_name_prefix="kizu-connect") as threads:
            running = [threads.submit(_until_one_ends, task, stop, outbox) for task in tasks]
        for one in running:
            one.result()


def _until_one_ends(task: Callable[[], None], stop: threading.Event, outbox: Outbox) -> None:
    """One that fails ends the process, which whatever started it starts again: without it, the
    others would go on and nobody would know."""
    try:
        task()
    finally:
        stop.set()
        outbox.wake()
