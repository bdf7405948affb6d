"""Load on a server: requests as fast as it answers, or at a rate whatever it does."""

import asyncio
import gc
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Answer:
    """`status` 0 is a connection that broke. `seconds` count from when it was to be sent."""

    due: float
    seconds: float
    status: int


@dataclass(frozen=True)
class Summary:
    """Of answers: how many were good in a second, and their latencies in milliseconds."""

    sent: int
    good: int
    other: dict[int, int]
    per_second: float
    p50: float
    p99: float


VARIED = 4
_numbers = itertools.count()


@dataclass(frozen=True)
class Question:
    """One kind of request. Of 4,096 no two have the same body where `varied` bytes of it can be
    raised by up to 7: no two photographs are the same, and a server may keep what it has seen."""

    path: str
    body: bytes
    media: str
    varied: int | None = None  # where the VARIED bytes are in the body

    def encode(self) -> list[bytes]:
        """As it goes over the wire, in parts, the second of which varies."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: kizu\r\nContent-Type: {self.media}\r\n"
            f"Content-Length: {len(self.body)}\r\n\r\n"
        )
        if self.varied is None:
            return [head.encode() + self.body, b"", b""]
        end = self.varied + VARIED
        body = self.body
        return [head.encode() + body[: self.varied], body[self.varied : end], body[end:]]


def vary(values: bytes, number: int) -> bytes:
    """`values`, each raised by one of the number's digits to the base of eight."""
    return bytes(value + (number >> 3 * i) % 8 for i, value in enumerate(values))


class Target:
    """What is asked, again and again, one question after the other."""

    def __init__(self, port: int, questions: Sequence[Question]) -> None:
        self._port = port
        self._requests = [question.encode() for question in questions]
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, number: int, due: float) -> Answer:
        """One request on a connection of its own, or one that is free."""
        connection = None
        try:
            connection = self._free() or await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = connection
            before, varied, after = self._requests[number % len(self._requests)]
            writer.writelines([before, vary(varied, next(_numbers)), after])
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            fields = dict(
                line.split(b":", 1) for line in head.lower().split(b"\r\n")[1:] if b":" in line
            )
            length = fields.get(b"content-length")
            await (reader.readexactly(int(length)) if length else _chunks(reader))
            if fields.get(b"connection", b"").strip() == b"close":
                writer.close()
            else:
                self._idle.append(connection)
        except (OSError, asyncio.IncompleteReadError):
            if connection:
                connection[1].close()
            status = 0
        return Answer(due, time.perf_counter() - due, status)

    def _free(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():  # or the server has had enough of waiting
                return reader, writer
            writer.close()
        return None

    def close(self) -> None:
        """Let go of all connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def _chunks(reader: asyncio.StreamReader) -> None:
    """Read a body of chunks to its end."""
    size = 1
    while size:
        size = int(await reader.readline(), 16)
        await reader.readexactly(size + 2)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No collection of garbage: it would halt the client for a tenth of a second, and be taken for
    the server's delay."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def closed_loop(
    target: Target, connections: int, seconds: float = np.inf, *, most: float = np.inf
) -> list[Answer]:
    """So many requests under way at any time, until it is time or `most` were sent."""
    answers: list[Answer] = []

    async def client(first: int) -> None:
        number, end = first, time.perf_counter() + seconds
        while (now := time.perf_counter()) < end and number < most:
            answers.append(await target.ask(number, now))
            number += connections

    with _undisturbed():
        await asyncio.gather(*(client(i) for i in range(connections)))
    target.close()
    return answers


async def open_loop(target: Target, rate: float, seconds: float) -> list[Answer]:
    """So many requests a second, evenly, whatever becomes of those before."""
    under_way = []
    with _undisturbed():
        start = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            under_way.append(asyncio.ensure_future(target.ask(number, due)))
        answers = await asyncio.gather(*under_way)
    target.close()
    return answers


def summarise(answers: Sequence[Answer], *, within: float = np.inf) -> Summary:
    """Good are those of status 200 that came `within` seconds."""
    good = [a for a in answers if a.status == 200 and a.seconds <= within]
    other: dict[int, int] = {}
    for answer in answers:
        if answer.status != 200:
            other[answer.status] = other.get(answer.status, 0) + 1
    first = min(a.due for a in answers)
    last = max(a.due + a.seconds for a in answers)
    latencies = [1000 * a.seconds for a in good] or [np.nan]
    p50, p99 = np.percentile(latencies, [50, 99])
    return Summary(
        len(answers), len(good), other, len(good) / (last - first), float(p50), float(p99)
    )
