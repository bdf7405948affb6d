"""Clients that are slow to send or to take: each is closed in time, and cameras notice nothing."""

import asyncio
import select
import socket
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import httpx2 as httpx
import uvloop

from service.connection import Patience
from tests.benchmarks.load import Answer, Question, Target, open_loop, summarise
from tests.gates.gate import Findings
from tests.gates.nursery import Nursery
from tests.grey_parts import HEIGHT, WIDTH, write_version

RATE = 20.0
P99_TIMES = 1.5
LATE_S = 1.0
_GIVEN_UP_S = 3.0  # after which nobody waits for it to be closed any more
MEMORY = 256_000_000
RAW = "application/octet-stream"
_PATH = f"/v1/inspect?width={WIDTH}&height={HEIGHT}&pixel_format=Mono8"
IMAGE = Question(_PATH, bytes([50]) * (WIDTH * HEIGHT), RAW, varied=0)
_HEAD = b"POST %b HTTP/1.1\r\nHost: kizu\r\nContent-Type: image/png\r\n"
_BODY = _HEAD % b"/v1/inspect"


@dataclass(frozen=True)
class Kind:
    """A way to be slow: what is sent at once, and again and again; how an answer begins; whether
    what is waited for begins with the first drip."""

    name: str
    first: bytes
    drip: bytes = b""
    answer: bytes = b""
    later: bool = False


HEADS = (
    Kind("nothing", b""),
    Kind("a head that stops", b"POST /v1/inspect HTTP/1.1\r\nHos"),
    Kind("a head that drips", b"POST /v1/inspect HTTP/1.1\r\nHos", b"t"),
    Kind("empty lines", b"GET /health/live HTTP/1.1\r\n\r\n", b"\r\n", b"HTTP/1.1 200", True),
)
BODIES = (
    Kind("a body that stops", _BODY + b"Content-Length: 999\r\n\r\nabc", b"", b"HTTP/1.1 408"),
    Kind("a body that drips", _BODY + b"Content-Length: 999\r\n\r\nabc", b"x", b"HTTP/1.1 408"),
    Kind("dripping chunks", _BODY + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n",
         b"HTTP/1.1 408"),
    Kind("an unwanted body", _HEAD % b"/nowhere" + b"Content-Length: 999\r\n\r\n", b"x",
         b"HTTP/1.1 40"),
)  # fmt: skip


@dataclass(frozen=True)
class Form:
    """How much is tried: seconds as usual, and with each sort of slow clients; how often they drip;
    how many senders and readers there are; an image's side, larger than what sockets hold."""

    usual_s: float
    slow_s: float
    drip_s: float
    senders: int
    readers: int
    side: int
    patience: Patience


FULL = Form(60, 90, 1.0, 200, 40, 5500, Patience())
SHORT = Form(0.5, 0.4, 0.1, 16, 4, 3500, Patience(head_s=0.5, body_s=0.6, answer_s=0.6))


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """As usual, beside slow senders, beside slow readers; p99 counts in the full form alone, for
    short runs vary too much."""
    found = Findings()
    form = FULL if full else SHORT
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_version(folder / "store")
        patience = form.patience
        nursery = Nursery(
            folder, head_seconds=patience.head_s, body_seconds=patience.body_s,
            answer_seconds=patience.answer_s,
        )  # fmt: skip
        try:
            nursery.start()
            answers = _serve(nursery, found, form, progress)
        finally:
            nursery.close()
    if found.counts["memory, MB"] * 1e6 > MEMORY:
        found.fail(f"slow clients took {found.counts['memory, MB']:.0f} MB")
    p99 = {when: _count(found, when, those) for when, those in answers.items()}
    for when, during in p99.items():
        if full and during > P99_TIMES * p99["as usual"]:
            found.fail(f"p99 was {during:.0f} ms {when}, {p99['as usual']:.0f} ms as usual")
    progress(1.0)
    return found


def _serve(
    nursery: Nursery, found: Findings, form: Form, progress: Callable[[float], None]
) -> dict[str, list[Answer]]:
    """What a camera is answered, by when."""
    paths = _large_answers(nursery, form.side)
    before = nursery.sockets()
    uvloop.run(_load(nursery, min(1.0, form.usual_s), []))
    memory = nursery.memory()
    answers = {"as usual": uvloop.run(_load(nursery, form.usual_s, []))}
    progress(0.2)
    slow = Slow(nursery, found, form)
    # They come one after the other: what many take at once has nothing to do with slowness.
    every_s = form.patience.body_s / form.senders
    kinds = islice(cycle([*HEADS, *BODIES]), form.senders)
    senders = [slow.send(kind, after_s=every_s * number) for number, kind in enumerate(kinds)]
    answers["beside slow senders"] = uvloop.run(_load(nursery, form.slow_s, senders))
    progress(0.6)
    every_s = form.patience.answer_s / form.readers
    ways = islice(cycle(product(paths, (False, True))), form.readers)
    readers = [slow.read(*way, after_s=every_s * number) for number, way in enumerate(ways)]
    answers["beside slow readers"] = uvloop.run(_load(nursery, form.slow_s, readers))
    found.counts["memory, MB"] = round((slow.memory - memory) / 1e6, 1)
    _look(nursery, before, found)
    return answers


class Slow:
    """Clients that begin anew when they were closed, until it is time."""

    def __init__(self, nursery: Nursery, found: Findings, form: Form) -> None:
        self._nursery = nursery
        self._found = found
        self._form = form
        self.memory = 0

    async def send(self, kind: Kind, *, after_s: float) -> None:
        """One client of this kind."""
        patience = self._form.patience
        within_s = patience.head_s if kind in HEADS else patience.body_s
        end = time.monotonic() + self._form.slow_s
        await asyncio.sleep(after_s)
        while True:
            started = time.monotonic() + (self._form.drip_s if kind.later else 0)
            reader, writer = await asyncio.open_connection("127.0.0.1", self._nursery.port)
            said = asyncio.ensure_future(_all(reader))
            writer.write(kind.first)
            while not said.done() and time.monotonic() < started + within_s + _GIVEN_UP_S:
                await asyncio.wait([said], timeout=self._form.drip_s)
                if kind.drip and not said.done():
                    writer.write(kind.drip)
            self._closed(kind.name, time.monotonic() - started, within_s)
            writer.close()
            answer = await said
            if not answer.startswith(kind.answer) or (answer and not kind.answer):
                self._found.fail(f"{kind.name}: was answered with {answer[:80]!r}")
            if time.monotonic() > end:
                return

    async def read(self, path: str, drips: bool, *, after_s: float) -> None:
        """One client that asks for much, and takes nothing, or next to nothing, of it."""
        end = time.monotonic() + self._form.slow_s
        await asyncio.sleep(after_s)
        within_s = self._form.patience.answer_s
        asked = f"GET {path} HTTP/1.1\r\nHost: kizu\r\n\r\n".encode()
        while True:
            started = time.monotonic()
            with socket.create_connection(("127.0.0.1", self._nursery.port)) as slow:
                slow.sendall(asked)
                slow.setblocking(False)
                gone = select.poll()
                gone.register(slow, 0)  # tells of errors alone, which reading would tell of too
                while not gone.poll(0) and time.monotonic() < started + within_s + _GIVEN_UP_S:
                    await asyncio.sleep(self._form.drip_s)
                    self.memory = max(self.memory, self._nursery.memory())
                    if drips:
                        try:
                            slow.recv(1)
                        except OSError:
                            continue  # nothing is there, or nobody
            name = f"{path.split('?')[0].split('/')[-1]}, {'dripping' if drips else 'not taken'}"
            took = time.monotonic() - started - self._form.drip_s  # it was noticed that late
            self._closed(name, took, within_s)
            if time.monotonic() > end:
                return

    def _closed(self, name: str, took: float, within_s: float) -> None:
        self._found.count("closed")
        self._found.most("latest, s", round(took - within_s, 2))
        if took > within_s + LATE_S:
            self._found.fail(f"{name}: closed after {took:.1f} s")
        if took < 0.5 * within_s:
            self._found.fail(f"{name}: closed after {took:.1f} s already")


async def _all(reader: asyncio.StreamReader) -> bytes:
    said = b""
    try:
        while part := await reader.read(4096):
            said += part
    except ConnectionError:
        pass  # closed, too
    return said


async def _load(
    nursery: Nursery, seconds: float, slow: list[Coroutine[Any, Any, None]]
) -> list[Answer]:
    line = open_loop(Target(nursery.port, [IMAGE]), RATE, seconds)
    answers, *_ = await asyncio.gather(line, *slow)
    return answers


def _large_answers(nursery: Nursery, side: int) -> list[str]:
    """Where an image is, and an export of it."""
    with httpx.Client(base_url=nursery.address, timeout=60) as client:
        inspected = client.post(
            "/v1/inspect",
            params={
                "width": side, "height": side, "pixel_format": "Mono8", "part_id": "large",
            },
            content=bytes([50]) * side**2, headers={"Content-Type": RAW},
        ).raise_for_status().json()  # fmt: skip
        label = {"inspection_id": inspected["id"], "verdict": "ok", "operator": "gate"}
        client.post("/v1/feedback", json=label).raise_for_status()
    return [inspected["image"], "/v1/export?format=mvtec&part_id=large"]


def _look(nursery: Nursery, before: int, found: Findings) -> None:
    end = time.monotonic() + LATE_S
    while (now := nursery.sockets()) > before and time.monotonic() < end:
        time.sleep(0.05)  # nothing tells
    found.counts["sockets kept"] = max(0, now - before)
    if now > before:
        found.fail(f"the service holds {now - before} sockets more than before")


def _count(found: Findings, when: str, answers: list[Answer]) -> float:
    found.count("images", len(answers))
    for answer in answers:
        if answer.status != 200:
            found.fail(f"{when}, an image was answered with {answer.status}")
    p99 = summarise(answers).p99
    found.counts[f"p99 {when}, ms"] = round(p99, 1)
    return p99
