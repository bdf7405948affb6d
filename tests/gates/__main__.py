"""Run the gates and print what they found."""

import json
import sys
import time
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from service.logs import configure_logging
from tests.gates.gate import CannotRun, Findings

GATES = (
    "images", "fidelity", "bundles", "bombs", "slow", "access", "fuzz", "payloads", "kills", "cuts",
    "outage", "disk", "upgrades", "restore", "clocks", "faults", "connectors", "shared",
    "collisions", "soak",
)  # fmt: skip


def main(
    *,
    full: Annotated[bool, typer.Option("--full", help="At length; minutes to hours.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="All counts.")] = None,
    only: Annotated[str, typer.Option(help="Gates, comma-separated.")] = ",".join(GATES),
) -> None:
    """Hold Kizu to what service/PROMISES.md says."""
    configure_logging()
    results: dict[str, Any] = {}
    for name in only.split(","):
        gate = import_module(f"tests.gates.{name}")
        started = time.monotonic()
        with Progress(console=Console(stderr=True)) as bars:
            bar = bars.add_task(name, total=1.0)
            try:
                found: Findings = gate.run(full, partial(_advance, bars, bar))
            except CannotRun as error:
                found = Findings(failures=[f"It was not tried. {error}"])
        results[name] = asdict(found) | {"seconds": round(time.monotonic() - started, 1)}
        if json_file:
            json_file.write_text(json.dumps({"full": full, "gates": results}, indent=2))
    table = Table("Gate", "Tried and found", "Seed", "Seconds", "Holds")
    for name, result in results.items():
        counts = ", ".join(f"{what} {value:g}" for what, value in result["counts"].items())
        held = "no" if result["failures"] else "yes"
        table.add_row(name, counts, str(result["seed"]), f"{result['seconds']:g}", held)
    console = Console()
    console.print(table)
    for name, result in results.items():
        for failure in result["failures"]:
            console.print(f"{name}: {failure}", markup=False)
    sys.exit(any(result["failures"] for result in results.values()))


def _advance(bars: Progress, bar: TaskID, share: float) -> None:
    bars.update(bar, completed=share)


if __name__ == "__main__":
    typer.run(main)
