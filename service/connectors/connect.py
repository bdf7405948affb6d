"""The process itself: one that takes results out of the service, and one for each receiver."""

import threading

from service.client import Kizu
from service.connectors.feeder import Feeder
from service.connectors.outbox import Outbox
from service.connectors.settings import ConnectSettings


def connect(settings: ConnectSettings, stop: threading.Event) -> None:
    """Pass results on until told to stop. Raises SettingsError."""
    receivers = settings.receivers()
    outbox = Outbox(settings.outbox)
    with Kizu(settings.service.url, key=settings.key) as kizu:
        feeder = Feeder(kizu, outbox, receivers)
        threads = [threading.Thread(target=feeder.run, args=(stop,), name="kizu-feeder")]
        threads += [
            threading.Thread(target=one.run, args=(outbox, stop), name=f"kizu-to-{one.name}")
            for one in receivers
        ]
        for thread in threads:
            thread.start()
        stop.wait()
        outbox.wake()
        for thread in threads:
            thread.join()
