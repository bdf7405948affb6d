"""The signals by which a system ends a process in order."""

import queue
import signal
import threading


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM or SIGINT sets. Called by the main thread, once.

    Python runs a signal's handler between any two steps of the main thread, also while that is
    inside the event's own `wait` and holds its lock: an event that the handler set itself would
    wait for that lock for ever. So the handler only queues, which `SimpleQueue` allows there, and
    another thread sets the event.
    """
    stop = threading.Event()
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()

    def set_when_arrived() -> None:
        arrived.get()
        stop.set()

    threading.Thread(target=set_when_arrived, name="kizu-stop", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: arrived.put(number))
    return stop
