"""Connections that wait for nobody for ever: what comes or is taken too slowly, or never ends, is
closed.

A camera sends its request in milliseconds. Whoever takes a minute for one holds what others need.
"""

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 65_536
_AT_ONCE = struct.pack("ii", 1, 0)  # of SO_LINGER: what nobody took is thrown away


@dataclass(frozen=True)
class Patience:
    """For how many seconds a client is waited for, from the first byte to the last: of a request's
    head, of its body, and until a piece of its answer is taken.

    The application says so in its lifespan's state, as `patience`.
    """

    head_s: float = 15.0
    body_s: float = 30.0
    answer_s: float = 30.0


class Connection(HttpToolsProtocol):
    """HTTP/1.1, whose clients send short heads and go on to send and to take."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience: Patience = self.app_state.get("patience", Patience())
        self._awaited: asyncio.TimerHandle | None = None  # the end of a head, or of a body
        self._in_head = False
        self._head_bytes = 0
        self._late = False
        self._untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_here()
        self._is_taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")
        # Whatever came ended uvicorn's wait for another request, be it an empty line.
        if not self._awaited and not self._late and self._is_answered():
            self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._late = False
        if not self._in_head:  # the first one's is awaited since the connection was made
            self._await_head()

    def on_headers_complete(self) -> None:
        self._is_here()
        self._awaited = self.loop.call_later(self._patience.body_s, self._give_up_body)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_here()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._late and self._is_answered():
            self._close()
        elif self.transport.is_closing():
            self._await_taking()

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(msg)
        self._await_taking()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():  # else there is an end that is to be taken, too
            self._is_taken()

    def _await_head(self) -> None:
        self._is_here()
        self._in_head = True
        self._head_bytes = 0
        self._awaited = self.loop.call_later(self._patience.head_s, self._close)

    def _is_here(self) -> None:
        self._in_head = False
        if self._awaited:
            self._awaited.cancel()
            self._awaited = None

    def _give_up_body(self) -> None:
        """Close where it is answered already, or once it is: who reads it says what is wrong."""
        self._awaited = None
        self._late = True
        if self._is_answered():
            self._close()

    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close(self) -> None:
        self.transport.close()
        self._await_taking()

    def _await_taking(self) -> None:
        if not self._untaken:
            self._untaken = self.loop.call_later(self._patience.answer_s, self._give_up_answer)

    def _is_taken(self) -> None:
        if self._untaken:
            self._untaken.cancel()
            self._untaken = None

    def _give_up_answer(self) -> None:
        self._untaken = None
        # Or the system would keep its part of the answer for minutes.
        held = self.transport.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()
