"""How near `kizu rescore` comes to its device, what it holds meanwhile, and what a kill costs.

python -m tests.benchmarks.rescoring --json FILE
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from service.rescoring.plan import PER_CHUNK
from tests.benchmarks.loop import Loop
from tests.benchmarks.material import bundle_of, camera_images

BATCHES = (1, 4)
KIZU = Path(sys.executable).with_name("kizu")


class Archive:
    """A folder of camera images, and what another version says of them."""

    def __init__(self, folder: Path, store: Path, images: list[bytes], count: int) -> None:
        self._store = store
        self._images = folder / "images"
        self._folder = folder
        self._images.mkdir()
        for number in range(count):
            first = self._images / f"{number % len(images):06}.jpg"
            if number < len(images):
                first.write_bytes(images[number])
            else:
                (self._images / f"{number:06}.jpg").hardlink_to(first)

    @contextmanager
    def rescoring(self, out: Path) -> Iterator[subprocess.Popen[bytes]]:
        """It runs, with all that it started."""
        data = ["--data", self._folder / "data", "--store", self._store]
        process = subprocess.Popen(
            [KIZU, "rescore", "cap", "1", out, "--images", self._images, *data],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def finished(out: Path) -> dict[str, float]:
    """When what was found of each chunk was written."""
    place = out / "results"
    return {one.name: one.stat().st_mtime for one in place.glob("*.csv")} if place.is_dir() else {}


def whole(archive: Archive, out: Path) -> dict[str, Any]:
    """All of it: from the first chunk on, since Ray has to start, and with that."""
    began = time.time()
    memory: list[float] = []
    with archive.rescoring(out) as process:
        while process.poll() is None:
            memory.append(_memory(process.pid))
            time.sleep(0.2)
        assert process.returncode == 0
    times = sorted(finished(out).values())
    half = len(memory) // 2
    return {
        "images": PER_CHUNK * len(times),
        "per_second": PER_CHUNK * (len(times) - 1) / (times[-1] - times[0]),
        "seconds_to_first_chunk": times[0] - began,
        "memory_mb": {"first half": max(memory[:half]), "second half": max(memory[half:])},
    }


def killed(archive: Archive, out: Path, chunks: int) -> dict[str, Any]:
    """Killed once half of it is done, and begun again."""
    with archive.rescoring(out) as process:
        while len(finished(out)) < chunks // 2:
            time.sleep(0.05)
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = finished(out)
    with archive.rescoring(out) as process:
        assert process.wait() == 0
    after = finished(out)
    return {
        "done_before": len(before), "chunks": len(after),
        "done_twice": sum(after[name] != when for name, when in before.items()),
    }  # fmt: skip


def main(
    *,
    json_file: Annotated[Path, typer.Option("--json", help="All figures.")],
    work: Annotated[Path, typer.Option(help="Bundles and images are kept here.")] = Path(
        ".kizu/serving"
    ),
    bundle: Annotated[str, typer.Option(help="A size of `serving`.")] = "mobilenet_v2",
    images: Annotated[int, typer.Option(help="How many.")] = 3200,
    seconds: Annotated[float, typer.Option(help="Of each bare measurement.")] = 10.0,
) -> None:
    """Measure a re-scoring on this machine."""
    work.mkdir(parents=True, exist_ok=True)
    work = work.resolve()
    store, seen = bundle_of(bundle, work), camera_images(work)
    loop = Loop(store / "cap" / "1", seen)
    figures: dict[str, Any] = {"bundle": bundle, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(dir=work) as name:
        archive = Archive(Path(name), store, seen, images)
        bare = {size: [_rate(loop, size, seconds)] for size in BATCHES}
        figures["whole"] = whole(archive, Path(name) / "whole")
        for size, rates in bare.items():
            rates.append(_rate(loop, size, seconds))
        figures["bare_per_second"] = max(statistics.mean(rates) for rates in bare.values())
        figures["of_bare"] = figures["whole"]["per_second"] / figures["bare_per_second"]
        figures["killed"] = killed(archive, Path(name) / "killed", images // PER_CHUNK)
    json_file.write_text(json.dumps(figures, indent=2))
    table = Table("Figure", "Measured", "Asked for")
    table.add_row("of the bare engine", f"{figures['of_bare']:.2f}", "0.9 at least")
    held = figures["whole"]["memory_mb"].values()
    table.add_row("memory, halves", " and ".join(f"{one:.0f} MB" for one in held), "no growth")
    table.add_row("done twice after a kill", str(figures["killed"]["done_twice"]), "0")
    Console().print(table)


def _rate(loop: Loop, size: int, seconds: float) -> float:
    took = loop.run(size, seconds)
    return size * len(took) / sum(took)


def _memory(pid: int) -> float:
    """MB that a process and all that it started have, what they share counted once each."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.name))
    total, left = 0, [pid]
    while left:
        one = left.pop()
        left += children.get(one, [])
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:")
    return total / 1000


if __name__ == "__main__":
    typer.run(main)
