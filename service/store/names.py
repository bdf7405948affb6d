"""Where a database server is, by its name."""

import socket
import threading
from concurrent.futures import Future
from ipaddress import ip_address

PATIENCE_S = 1.0


class Names:
    """Looks names up for at most a second, and after that goes by what was found last.

    libpq would ask by itself, for as long as the system's resolver does: 20 s where no name server
    answers, and nothing else of Python runs meanwhile.
    """

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}

    def addresses(self, host: str) -> list[str]:
        """Of a host. Raises OSError where it has none, or nobody ever said."""
        try:
            return [str(ip_address(host))]
        except ValueError:
            pass
        found: Future[list[str]] = Future()
        # A daemon: nobody waits at the end for a resolver that does not answer.
        threading.Thread(
            target=_look_up, args=(host, found), name="kizu-names", daemon=True
        ).start()
        try:
            self._known[host] = found.result(PATIENCE_S)
        except OSError:  # no answer in time is one, too
            if host not in self._known:
                raise
        return self._known[host]


def _look_up(host: str, found: Future[list[str]]) -> None:
    try:
        known = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        found.set_result([str(one[4][0]) for one in known])
    except OSError as error:
        found.set_exception(error)
