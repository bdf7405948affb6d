"""Renews the pictures of the guides: parts that Kizu draws, its own heatmap and its own console.

    python deploy/pictures/make.py [FOLDER]

It draws the demo product, fits a recipe on its good parts, has some inspected, and looks at the
console with a browser: some minutes on two cores, less where a FOLDER keeps what was fitted. It
needs the extras [cpu,train,dev], and Debian's chromium.
"""

import io
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

OUT = Path(__file__).parent
BIN = Path(sys.executable).parent
PORT = 8042
URL = f"http://127.0.0.1:{PORT}"
MOST_BYTES = 150_000
GOOD = 10


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        work = Path(sys.argv[1] if len(sys.argv) > 1 else made)
        demo = work / "demo"
        if not (work / "store").exists():
            kizu_train("demo-data", demo)
            kizu_train(
                "fit", demo, "--recipe", "cap",
                "--store", work / "store", "--cache", work / "cache",
            )  # fmt: skip
        with tempfile.TemporaryDirectory() as data, service(work / "store", data):
            parts = chosen(demo / "test")
        with tempfile.TemporaryDirectory() as data, service(work / "store", data):
            for number, part in enumerate(parts):
                result = inspect(part, f"C-{1041 + number}")
            heatmap(parts[-1], result["heatmap"])
            console()


def chosen(test: Path) -> list[Path]:
    """Good parts, with the two most conspicuous of each kind of defect among them; the most
    conspicuous of all is the last, which is shown large."""
    kinds = {kind: sorted((test / kind).iterdir()) for kind in ("dent", "missing_print", "scratch")}
    scores = {file: inspect(file, "x")["score"] for files in kinds.values() for file in files}
    defects = [
        file for files in kinds.values() for file in sorted(files, key=lambda f: -scores[f])[:2]
    ]
    good = sorted((test / "good").iterdir())[:GOOD]
    last = max(defects, key=lambda file: scores[file])
    parts = list(good)
    for place, file in enumerate(file for file in defects if file != last):
        parts.insert(2 + 2 * place, file)
    return [*parts, last]


def kizu_train(*arguments: str | Path) -> None:
    command = [BIN / "kizu-train", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - its own words


@contextmanager
def service(store: Path, data: str) -> Iterator[None]:
    with subprocess.Popen(  # noqa: S603
        [BIN / "kizu", "serve", "--store", store, "--data", data, "--port", str(PORT)],
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            while not ready():
                time.sleep(0.2)
            yield
        finally:
            process.terminate()


def ready() -> bool:
    try:
        with urllib.request.urlopen(f"{URL}/health/ready", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def inspect(file: Path, part: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{URL}/v1/inspect?recipe=cap&camera=cam1&part_id={part}",
        file.read_bytes(),
        {"Content-Type": "image/jpeg"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        result: dict[str, Any] = json.load(answer)
    return result


def heatmap(file: Path, address: str) -> None:
    """The part as it came, and beside it what Kizu sees."""
    with urllib.request.urlopen(f"{URL}{address}?format=overlay", timeout=60) as answer:
        overlay = Image.open(io.BytesIO(answer.read()))
    part = Image.open(file)
    both = Image.new("RGB", (2 * part.width + 16, part.height), "white")
    both.paste(part, (0, 0))
    both.paste(overlay.resize(part.size), (part.width + 16, 0))
    keep("heatmap", both)


def console() -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800}, locale="en")
        page.add_init_script("localStorage.setItem('kizu.operator', 'Eva')")
        page.goto(URL)
        page.locator(".last .verdict").wait_for()
        shoot("line", page)
        page.goto(f"{URL}/#/review")
        page.locator(".verdicts").wait_for()
        shoot("review", page)
        browser.close()


def shoot(name: str, page: Page) -> None:
    page.wait_for_function("() => [...document.images].every((one) => one.complete)")
    page.wait_for_timeout(1000)  # fonts, and what is drawn on the part
    keep(name, Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


def keep(name: str, picture: Image.Image) -> None:
    """As large as it may be."""
    for quality in range(90, 30, -5):
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() <= MOST_BYTES:
            break
    (OUT / f"{name}.webp").write_bytes(buffer.getvalue())
    print(f"{name}.webp: {picture.width} × {picture.height}, {buffer.tell() // 1000} kB")


main()
