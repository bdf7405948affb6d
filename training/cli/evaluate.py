"""`kizu-train evaluate` and `repeatability`: how a bundle does on images with known verdicts."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from models.bundle import MODEL, Bundle, open_bundle
from models.durable import write_file
from models.session import Device, open_session
from training.benchmarks.repeatability import read_parts, repeatability
from training.cli.options import (
    DeviceOption,
)
from training.data.folders import Dataset, read_mvtec
from training.errors import TrainingError
from training.evaluation.scoring import evaluate, score_images
from training.evaluation.verdicts import by_label
from training.finetuning.retrain import champion_source


def evaluate_command(
    data: Annotated[Path, typer.Argument(help="Folder in the MVTec layout, with test/.")],
    bundle: Annotated[Path, typer.Option(help="Bundle <store>/<recipe>/<version>.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Score a test folder with a bundle, exactly as the service does."""
    opened = open_bundle(bundle)
    dataset = read_mvtec(data)
    if not dataset.test:
        raise TrainingError(
            f"{data} has no test images.", remedy="Put some into test/good and test/<defect>."
        )
    figures = _evaluate(opened, dataset, device)
    if json_file:
        write_file(json_file, json.dumps(figures, indent=2).encode())
    typer.echo(json.dumps(figures, indent=2))


def repeatability_command(
    parts: Annotated[Path, typer.Argument(help="A folder for each part, with its images.")],
    bundle: Annotated[Path, typer.Option(help="Bundle <store>/<recipe>/<version>.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write a page with a plot here.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Whether the same part gets the same verdict each time, as an acceptance test asks."""
    opened = open_bundle(bundle)
    found = read_parts(parts)
    session = open_session(opened.read(MODEL), device=device)
    files = [file for several in found.values() for file in several]
    scored = score_images(session, champion_source(opened), files)
    result = repeatability([(f, score) for f, score, _ in scored], found, opened.manifest)
    figures = json.dumps(result.figures(), indent=2)
    if json_file:
        write_file(json_file, figures.encode())
    if out:
        write_file(out, result.render().encode())
    typer.echo(figures)


def _evaluate(bundle: Bundle, dataset: Dataset, device: Device) -> dict[str, object]:
    source = champion_source(bundle)
    session = open_session(bundle.read(MODEL), device=device)
    result = evaluate(score_images(session, source, dataset.test), source.size)
    verdicts = by_label(result.scores, result.anomalous, bundle.manifest.thresholds)
    return {
        "images": len(result.files),
        "verdicts": {
            name: {
                **asdict(found),
                "stopped": round(found.stopped, 4),
                "passed": round(found.passed, 4),
                "rejected": round(found.rejected, 4),
            }
            for name, found in verdicts.items()
        },
        **result.metrics,
    }
