"""Broken images: each is refused or inspected, within 2 s, and the next good one is unharmed."""

import http.client
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from tests.gates.gate import Findings
from tests.grey_parts import image, write_version
from tests.listening import listening

FORMATS = {
    "JPEG": "image/jpeg", "PNG": "image/png", "BMP": "image/bmp", "TIFF": "image/tiff",
    "WEBP": "image/webp",
}  # fmt: skip
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F")
LIMIT_S = 2.0
_BOUNDARY = "kizu-gate"
_LIES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
GOOD = image(50)


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """Send every file of the corpus and as many mutations, raw and as a form."""
    found = Findings(seed=4)
    rng = np.random.default_rng(found.seed)
    whole = dict(seeds())
    corpus = [one for name, data in whole.items() for one in spoiled(name, data, full=full)]
    wanted = 10_000 if full else 200
    corpus += [mutated(rng, *pick(rng, whole)) for _ in range(wanted)]
    with tempfile.TemporaryDirectory() as folder, _served(Path(folder)) as address:
        camera = Camera(address, found)
        for number, (name, media, data) in enumerate(corpus):
            camera.shoot(name, media, data, form=bool(number % 2))
            progress((number + 1) / len(corpus))
        camera.close()
    return found


def _served(folder: Path) -> Any:
    write_version(folder / "store")
    settings = Settings(store=folder / "store", data=folder / "data", max_pixels=1_000_000)
    return listening(create_app(settings, open_engine=lambda bundle: FakeEngine()))


class Camera:
    """Sends over one connection, and a good frame after each other one."""

    def __init__(self, address: tuple[str, int], found: Findings) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=30)
        self._found = found

    def shoot(self, name: str, media: str, data: bytes, *, form: bool) -> None:
        """One image that may be anything."""
        found = self._found
        started = time.perf_counter()
        try:
            status, body = self._send(media, data, form=form)
        except (OSError, http.client.HTTPException) as error:
            found.fail(f"{name}: the connection broke: {error!r}")
            self._connection.close()
            return
        took = time.perf_counter() - started
        found.count("inspected" if status == 200 else "refused")
        found.most("slowest, s", took)
        if status != 200 and not 400 <= status < 500:
            found.fail(f"{name}: {status} {body[:200]!r}")
        elif status != 200 and json.loads(body).get("verdict") != "error":
            found.fail(f"{name}: {status} is no error: {body[:200]!r}")
        if took > LIMIT_S:
            found.fail(f"{name}: took {took:.1f} s")
        try:
            status, body = self._send("image/png", GOOD, form=False)
        except (OSError, http.client.HTTPException) as error:
            found.fail(f"after {name}: the connection broke: {error!r}")
            self._connection.close()
            return
        if status != 200 or json.loads(body)["verdict"] != "ok":
            found.fail(f"after {name}: a good frame gave {status} {body[:200]!r}")

    def close(self) -> None:
        self._connection.close()

    def _send(self, media: str, data: bytes, *, form: bool) -> tuple[int, bytes]:
        if form:
            head = (
                f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="i"\r\n'
                f"Content-Type: {media}\r\n\r\n"
            )
            data = head.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
            media = f"multipart/form-data; boundary={_BOUNDARY}"
        self._connection.request("POST", "/v1/inspect", data, {"Content-Type": media})
        answer = self._connection.getresponse()
        return answer.status, answer.read()


def seeds() -> Iterator[tuple[tuple[str, str], bytes]]:
    """A small file of each format in each mode that it knows."""
    drawn = Image.new("RGB", (64, 48), (90, 60, 120))
    drawn.paste((200, 220, 40), (10, 10, 40, 30))
    for (format, media), mode in product(FORMATS.items(), MODES):
        buffer = io.BytesIO()
        try:
            _as(drawn, mode).save(buffer, format)
        except (OSError, KeyError, ValueError):  # that format has no such mode
            continue
        yield (f"{format} {mode}", media), buffer.getvalue()


def _as(drawn: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(drawn.convert("L"), np.uint16) * 257)
    return drawn.convert(mode)


def spoiled(name: tuple[str, str], data: bytes, *, full: bool) -> Iterator[tuple[str, str, bytes]]:
    """Cut off, its header's numbers replaced, its bits turned one by one, called something else."""
    title, media = name
    step = max(1, len(data) // (40 if full else 6))
    for length in range(0, len(data), step):
        yield f"{title}, cut at {length}", media, data[:length]
    for place in range(0, min(len(data), 64), 1 if full else 16):
        for width in (2, 4):
            for value in _LIES if full else _LIES[-1:]:
                for order in ("little", "big"):
                    lie = (value % 256**width).to_bytes(width, order)  # type: ignore[arg-type]
                    spoilt = data[:place] + lie + data[place + width :]
                    yield f"{title}, {value} at {place}", media, spoilt
    for place in range(0, len(data), step):
        turned = bytearray(data)
        turned[place] ^= 1 << place % 8
        yield f"{title}, bit turned in {place}", media, bytes(turned)
    for other in FORMATS.values():
        if other != media:
            yield f"{title} as {other}", other, data


def pick(
    rng: np.random.Generator, whole: dict[tuple[str, str], bytes]
) -> tuple[tuple[str, str], bytes]:
    """One of the files."""
    name = list(whole)[rng.integers(len(whole))]
    return name, whole[name]


def mutated(rng: np.random.Generator, name: tuple[str, str], data: bytes) -> tuple[str, str, bytes]:
    """Some of its bytes changed, moved, doubled or gone."""
    spoilt = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        start = int(rng.integers(len(spoilt) or 1))
        length = int(rng.integers(1, 16))
        kind = rng.integers(5)
        if kind == 0:
            spoilt[start : start + length] = rng.bytes(length)
        elif kind == 1:
            del spoilt[start : start + length]
        elif kind == 2:
            spoilt[start:start] = rng.bytes(length)
        elif kind == 3:
            spoilt[start:start] = spoilt[start : start + length]
        elif spoilt:
            spoilt[min(start, len(spoilt) - 1)] = int(rng.choice([0, 1, 127, 128, 255]))
    title, media = name
    return f"{title}, mutated", media, bytes(spoilt)
