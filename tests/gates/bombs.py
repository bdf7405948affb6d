"""Requests that would take all memory or all time: refused soon, and cheaply, also many at once."""

import io
import socket
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from tests.gates.gate import Findings
from tests.gates.nursery import Nursery
from tests.grey_parts import image, write_version

FROM_HEADER_S = 0.05
EACH_S = 10.0
AT_ONCE = 16
MEMORY = 256_000_000
_BOUNDARY = "kizu-gate"


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """Each kind alone, then so many at once, while a camera goes on."""
    found = Findings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_version(folder / "store")
        nursery = Nursery(folder)
        try:
            nursery.start()
            _shoot(nursery, found)  # warm
            kinds, worst = bombs(), ""
            for number, (what, parts) in enumerate(kinds.items()):
                took = _throw(nursery, found, what, parts)
                if what.startswith("pixels") and took > FROM_HEADER_S and full:
                    found.fail(f"{what}: refused after {1000 * took:.0f} ms")
                _shoot(nursery, found)
                progress(0.5 * (number + 1) / len(kinds))
            for what, parts in kinds.items():
                before = nursery.memory()
                with ThreadPoolExecutor(AT_ONCE) as many:
                    thrown = [
                        many.submit(_throw, nursery, found, what, parts) for _ in range(AT_ONCE)
                    ]
                    while not all(one.done() for one in thrown):
                        held = round((nursery.memory() - before) / 1e6, 1)
                        if held > found.counts.get("memory, MB", 0.0):
                            found.counts["memory, MB"], worst = held, what
                        time.sleep(0.02)  # memory is looked at, nothing tells of it
                    for one in thrown:
                        one.result()
                _shoot(nursery, found)
            if found.counts["memory, MB"] * 1e6 > MEMORY:
                found.fail(f"{worst}: {AT_ONCE} at once took {found.counts['memory, MB']:.0f} MB")
        finally:
            nursery.close()
    progress(1.0)
    return found


def bombs() -> dict[str, list[bytes]]:
    """What is sent, in parts."""
    good = image(50)
    boundary = f"multipart/form-data; boundary={_BOUNDARY}"
    part = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'.encode()
    return {
        "a body that says 1 TB": [_head("image/png", 10**12), b"x" * 100_000],
        "chunks without an end, 40 MB": [
            _chunked("image/png"), *[b"100000\r\n" + b"x" * 2**20 + b"\r\n"] * 40, b"0\r\n\r\n",
        ],
        "65,536 chunks of a byte": [
            _chunked("image/png"), b"1\r\nx\r\n" * 65_536, b"0\r\n\r\n",
        ],
        "a form of 1,000 parts": [
            _head(boundary, len(part) * 1000 + len(_BOUNDARY) + 8), part * 1000,
            f"--{_BOUNDARY}--\r\n\r\n".encode(),
        ],
        "a form of 100,000 parts": [
            _head(boundary, len(part) * 100_000 + len(_BOUNDARY) + 8), part * 100_000,
            f"--{_BOUNDARY}--\r\n\r\n".encode(),
        ],
        "pixels in a PNG: 60,000 × 60,000": _whole("image/png", _png(60_000)),
        "pixels in a BMP: 60,000 × 60,000": _whole("image/bmp", _bmp(60_000)),
        "pixels in a JPEG: 65,000 × 65,000": _whole("image/jpeg", _jpeg(65_000)),
        "pixels in a TIFF: 60,000 × 60,000": _whole("image/tiff", _tiff(60_000)),
        "a PNG of zeros that unpacks to 30 MB": _whole("image/png", _zeros()),
        "JSON of 30 MB": [
            _head("application/json", 30_000_000, "/v1/feedback"), *[b"[" * 1_000_000] * 30,
        ],
        "a raw buffer that is another size": _whole(
            "application/octet-stream", good, "/v1/inspect?width=9&height=9&pixel_format=Mono8"
        ),
    }  # fmt: skip


def _throw(nursery: Nursery, found: Findings, what: str, parts: list[bytes]) -> float:
    """Seconds until its answer."""
    found.count("bombs")
    started = time.perf_counter()
    with socket.create_connection(("127.0.0.1", nursery.port), timeout=60) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:
            found.count("closed while it was sent")  # with its answer sent, or without
        try:
            status = connection.recv(65536)[9:12]
        except OSError:
            status = b""
    took = time.perf_counter() - started
    found.most("slowest, s", round(took, 2))
    if status and not status.startswith(b"4") and status != b"503":
        found.fail(f"{what}: {status!r}")
    if took > EACH_S:
        found.fail(f"{what}: took {took:.1f} s")
    return took


def _shoot(nursery: Nursery, found: Findings) -> None:
    """A good frame."""
    with socket.create_connection(("127.0.0.1", nursery.port), timeout=60) as camera:
        for part in _whole("image/png", image(50)):
            camera.sendall(part)
        status = camera.recv(65536)[9:12]
    if status != b"200":
        found.fail(f"a good frame was answered with {status!r}")


def _head(media: str, length: int, path: str = "/v1/inspect") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: kizu\r\nContent-Type: {media}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def _chunked(media: str) -> bytes:
    return (
        f"POST /v1/inspect HTTP/1.1\r\nHost: kizu\r\nContent-Type: {media}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()


def _whole(media: str, data: bytes, path: str = "/v1/inspect") -> list[bytes]:
    return [_head(media, len(data), path), data]


def _png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = zlib.compress(b"\0" * 100_000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    )


def _zeros() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (5_500, 5_500)).save(buffer, "PNG")
    return buffer.getvalue()[:-40]  # and it is not even whole


def _bmp(side: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 100, 0, 0, 54) + head + b"\0" * 100


def _jpeg(side: int) -> bytes:
    whole = io.BytesIO()
    Image.new("RGB", (64, 64)).save(whole, "JPEG")
    data = bytearray(whole.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def _tiff(side: int) -> bytes:
    entries = [
        (256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8),
        (277, 3, 1), (278, 4, side), (279, 4, 100),
    ]  # fmt: skip
    fields = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return (
        b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + fields
        + struct.pack("<I", 0) + b"\0" * 100
    )  # fmt: skip
