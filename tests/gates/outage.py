"""PostgreSQL is gone for ten minutes at line rate: every image is answered, and no result is lost
or doubled."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx
import uvloop
from sqlalchemy import create_engine, func, select, text

from service.store.tables import Inspection
from tests.benchmarks.load import VARIED, Answer, Question, Target, open_loop, summarise
from tests.cable import cable
from tests.gates.gate import Findings
from tests.gates.nursery import Nursery
from tests.grey_parts import HEIGHT, WIDTH, write_version
from tests.postgresql import postgresql

RATE = 20.0
DRAINED_S = 60.0
P99_TIMES = 1.2
_RAW = f"/v1/inspect?width={WIDTH}&height={HEIGHT}&pixel_format=Mono8"
IMAGE = Question(_RAW, bytes([50]) * (WIDTH * HEIGHT), "application/octet-stream", varied=0)


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """As usual, away, and back; p99 counts in the full form alone, for short runs vary too much."""
    found = Findings()
    usual_s, away_s = (60, 600) if full else (2, 4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_version(folder / "store")
        with postgresql(folder) as url:
            with cable(Path(str(url.query["host"])) / ".s.PGSQL.5432") as plug:
                far = url.set(host="127.0.0.1", port=plug.port, query={})
                nursery = Nursery(folder, far.render_as_string(hide_password=False))
                try:
                    try:
                        nursery.start()
                    except RuntimeError:
                        # As its supervisor would: on a busy machine three seconds, which are what
                        # a connection to a database may take, can be too few.
                        nursery.start()
                    _load(nursery, 1)
                    usual = _load(nursery, usual_s)
                    progress(0.1)
                    plug.pull()
                    away = _load(nursery, away_s)
                    progress(0.9)
                    plug.plug()
                    took = _drained(nursery)
                finally:
                    nursery.close()
            _count(found, url.render_as_string(hide_password=False), usual + away)
    found.counts |= {"seconds away": away_s, "seconds to drain": round(took, 1)}
    if took > DRAINED_S:
        found.fail(f"it took {took:.0f} s until everything had arrived")
    before, during = summarise(usual).p99, summarise(away).p99
    found.counts |= {"p99 before, ms": round(before, 1), "p99 away, ms": round(during, 1)}
    if full and during > P99_TIMES * before:
        found.fail(f"p99 was {during:.0f} ms while it was away, {before:.0f} ms before")
    progress(1.0)
    return found


def _load(nursery: Nursery, seconds: float) -> list[Answer]:
    return uvloop.run(open_loop(Target(nursery.port, [IMAGE]), RATE, seconds))


def _drained(nursery: Nursery) -> float:
    started = time.monotonic()
    with httpx.Client(base_url=nursery.address, timeout=30) as client:
        while time.monotonic() < started + 2 * DRAINED_S:
            if "kizu_spooled_results 0.0" in client.get("/metrics").text:
                break
            time.sleep(0.1)  # nothing tells when
    return time.monotonic() - started


def _count(found: Findings, url: str, answers: list[Answer]) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.scalar(select(func.count()).select_from(Inspection)) or 0
        different = connection.scalar(text("SELECT count(DISTINCT image_sha256) FROM inspections"))
    engine.dispose()
    found.count("images", len(answers))
    for answer in answers:
        if answer.status != 200:
            found.fail(f"an image was answered with {answer.status}")
    warm = RATE  # the first second's
    if rows != len(answers) + warm or different != min(rows, 8**VARIED):
        found.fail(f"{len(answers) + warm:g} images made {rows} rows of {different} images")
