"""A line of grey parts: a service behind a real server, and what happens there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.app import create_app
from service.client import Kizu
from service.connectors.outbox import Outbox
from service.connectors.receiver import Receiver
from service.engine import FakeEngine
from service.settings import Settings
from tests.grey_parts import image
from tests.listening import listening


@contextmanager
def grey_line(folder: Path, port: int = 0) -> Iterator[Kizu]:
    """Who asks the service of the store and the data in a folder; again on the same ones, it is the
    same service after a restart."""
    app = create_app(
        Settings(store=folder / "store", data=folder / "data"),
        open_engine=lambda bundle: FakeEngine(),
    )
    with listening(app, port) as (host, port), Kizu(f"http://{host}:{port}") as kizu:
        yield kizu


def inspect(kizu: Kizu, grey: int, **given: Any) -> str:
    """Have a part inspected; the result's id."""
    return kizu.inspect(image(grey), recipe="cap", image_type="image/png", **given).id


@contextmanager
def carrying(outbox: Outbox, *receivers: Receiver) -> Iterator[None]:
    """Receivers are sent what waits for them, until the end."""
    stop = threading.Event()
    threads = [threading.Thread(target=one.run, args=(outbox, stop)) for one in receivers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        outbox.wake()
        for thread in threads:
            thread.join()
