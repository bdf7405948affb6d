"""What the process has freed, given back to the system: images, archives of charts and exports come
and go for months, and leave holes in what the C library keeps for later.

Nothing but glibc's is known here, and elsewhere nothing is done.
"""

import ctypes
import threading

EVERY_S = 30.0
_M_ARENA_MAX = -8  # malloc.h


def tend_memory() -> None:
    """Begin, for as long as the process lives."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        return
    # Threads take from two pools, not from one each: what decoding frees in one is of no use to
    # the others, and a service of many threads grew by a fifth.
    libc.mallopt(_M_ARENA_MAX, 2)
    threading.Thread(target=_trim, args=(libc,), name="kizu-memory", daemon=True).start()


def _trim(libc: ctypes.CDLL) -> None:
    """It takes a few milliseconds, and other threads run meanwhile."""
    timer = threading.Event()
    while not timer.wait(EVERY_S):
        libc.malloc_trim(0)
