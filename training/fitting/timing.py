"""How long an image takes on the machine that fits."""

import time

import numpy as np
from numpy.typing import NDArray

from models.image import InputSize
from models.session import Device, open_session

THREADS = 2
_RUNS = 15


def image_times(graph: bytes, size: InputSize, device: Device = "cpu") -> NDArray[np.float64]:
    """Milliseconds that a graph takes for one image, on two threads, of several runs, ascending.

    The median is what to expect; the first is the least disturbed by other programs.
    """
    session = open_session(graph, device=device, threads=THREADS)
    image = np.zeros((1, size.height, size.width, 3), np.uint8)
    session.run(None, {"image": image})  # the first one makes the device ready
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        session.run(None, {"image": image})
        times.append(1000 * (time.perf_counter() - started))
    return np.sort(times)
