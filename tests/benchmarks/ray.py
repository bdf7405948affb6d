"""What a cluster costs, gains and survives: three nodes of Ray on this machine.

    python -m tests.benchmarks.ray --json FILE

Engines that sleep have a known speed, so that two of them can be compared where cores are few.
"""

import json
import os
import statistics
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from tests.benchmarks.load import Question, Summary, Target, closed_loop, open_loop, summarise
from tests.benchmarks.sleeping import Sleeping
from tests.benchmarks.subject import kizu
from tests.grey_parts import image, write_version
from tests.nodes import BATCH, Nodes

RATE = 20.0
# Two of the slow ones ask for less than a front can do, or it would be the front that is measured.
SLOW, INSTANT = Sleeping(run_s=0.1, image_s=0.05), Sleeping(run_s=0, image_s=0)
PARTS = ("added", "front", "replicas", "killed")


def added(nodes: Nodes, folder: Path, seconds: float, repeats: int) -> dict[str, Any]:
    """One request at a time of a camera's image, by the plain service and by the cluster."""
    asked = Question("/v1/inspect", _photograph(), "image/jpeg")
    with kizu(folder / "store", folder / "plain") as plain, nodes.serving(1, sleep=None):
        runs = [
            [_closed(port, asked, 1, seconds) for port in (plain.port, nodes.port)]
            for _ in range(repeats)
        ]
    return {
        "image_bytes": len(asked.body),
        "plain": [asdict(one) for one, _ in runs],
        "cluster": [asdict(other) for _, other in runs],
        "added_p50_ms": statistics.median(other.p50 - one.p50 for one, other in runs),
    }


def front(nodes: Nodes, seconds: float, repeats: int) -> dict[str, Any]:
    """As many small images as a front can do, whose engines take no time."""
    with nodes.serving(2, sleep=INSTANT):
        runs = [_closed(nodes.port, _small(), 4 * BATCH, seconds) for _ in range(repeats)]
    rate = statistics.median(run.per_second for run in runs)
    return {"runs": [asdict(run) for run in runs], "per_second": rate}


def replicas(nodes: Nodes, seconds: float, repeats: int) -> dict[str, Any]:
    """As many images as one engine does, and two."""
    found: dict[str, Any] = {"engine_s": [SLOW.run_s, SLOW.image_s]}
    bare = SLOW.per_second(BATCH)
    for engines in (1, 2):
        with nodes.serving(engines, sleep=SLOW):
            runs = [_closed(nodes.port, _small(), 4 * BATCH, seconds) for _ in range(repeats)]
        rate = statistics.median(run.per_second for run in runs)
        found[str(engines)] = {
            "runs": [asdict(run) for run in runs], "per_second": rate,
            "of_bare": rate / (engines * bare),
        }  # fmt: skip
    found["two_of_one"] = found["2"]["per_second"] / found["1"]["per_second"]
    return found


def killed(nodes: Nodes, seconds: float) -> dict[str, Any]:
    """A node is killed under load, and another one comes."""
    found: dict[str, Any] = {}
    with nodes.serving(2, sleep=Sleeping()):
        for what, act in (("usual", None), ("killed", nodes.kill_one), ("back", nodes.replace)):
            timer = threading.Timer(seconds / 3, act) if act else None
            if timer:
                timer.start()
            answers = uvloop.run(open_loop(Target(nodes.port, [_small()]), RATE, seconds))
            if timer:
                timer.join()
            found[what] = asdict(summarise(answers))
    found["failed"] = sum(found[what]["sent"] - found[what]["good"] for what in found)
    return found


def main(
    *,
    json_file: Annotated[Path, typer.Option("--json", help="All figures.")],
    only: Annotated[str, typer.Option(help="Parts, comma-separated.")] = ",".join(PARTS),
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 15.0,
    repeats: Annotated[int, typer.Option()] = 3,
) -> None:
    """Measure a cluster."""
    figures: dict[str, Any] = {"cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_version(folder / "store")
        nodes = Nodes(folder)
        try:
            for part in only.split(","):
                if part == "added":
                    figures[part] = added(nodes, folder, seconds, repeats)
                elif part == "front":
                    figures[part] = front(nodes, seconds, repeats)
                elif part == "replicas":
                    figures[part] = replicas(nodes, seconds, repeats)
                else:
                    figures[part] = killed(nodes, 2 * seconds)
                json_file.write_text(json.dumps(figures, indent=2))
        finally:
            nodes.close()
    _show(figures)


def _photograph() -> bytes:
    """1.4 MB, as a camera of two megapixels sends."""
    import io

    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).normal(0, 22, (1200, 1600, 3))
    drawn = Image.fromarray(np.clip(90 + noise, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _small() -> Question:
    return Question("/v1/inspect", image(50), "image/png")


def _closed(port: int, asked: Question, connections: int, seconds: float) -> Summary:
    target = Target(port, [asked])
    uvloop.run(closed_loop(target, connections, seconds / 5))  # warm
    return summarise(uvloop.run(closed_loop(target, connections, seconds)))


def _show(figures: dict[str, Any]) -> None:
    table = Table("Figure", "Measured", "Asked for")
    if "added" in figures:
        found = figures["added"]
        plain = statistics.median(run["p50"] for run in found["plain"])
        table.add_row(
            f"added to a median of {plain:.1f} ms, an image of {found['image_bytes'] / 1e6:.1f} MB",
            f"{found['added_p50_ms']:.1f} ms", "5 ms at most",
        )  # fmt: skip
    if "front" in figures:
        found = figures["front"]
        table.add_row("small images by a front", f"{found['per_second']:.0f} a second", "")
    if "replicas" in figures:
        found = figures["replicas"]
        table.add_row("two engines of one", f"{found['two_of_one']:.2f}×", "1.7× at least")
        table.add_row("one, of what its engine can", f"{found['1']['of_bare']:.0%}", "")
    if "killed" in figures:
        found = figures["killed"]
        sent = sum(one["sent"] for one in found.values() if isinstance(one, dict))
        table.add_row(f"failed of {sent}, a node killed", str(found["failed"]), "0")
        table.add_row("p99 before and then", " and ".join(
            f"{found[what]['p99']:.0f} ms" for what in ("usual", "killed")), "")  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
