"""The process itself: a thread that asks for results, and one for each receiver and each folder."""

import threading

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
        threads = [
            threading.Thread(target=one.run, args=(kizu, stop), name=f"kizu-from-{one.name}")
            for one in folders
        ]
        threads += [
            threading.Thread(target=one.run, args=(outbox, stop), name=f"kizu-to-{one.name}")
            for one in receivers
        ]
        if receivers:
            feeder = Feeder(kizu, outbox, receivers)
            threads.append(threading.Thread(target=feeder.run, args=(stop,), name="kizu-feeder"))
        for thread in threads:
            thread.start()
        stop.wait()
        outbox.wake()
        for thread in threads:
            thread.join()
