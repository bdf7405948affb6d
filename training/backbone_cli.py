"""`kizu-train backbone`: import, pull, filters, list."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from models.backbone import EMBEDDED, list_backbones, open_backbone
from training.backbones import filter_backbone, import_backbone, pull_backbone

backbone_app = typer.Typer(no_args_is_help=True, help="Bring and list frozen feature extractors.")

BackbonesOption = Annotated[
    Path,
    typer.Option(
        "--backbones",
        envvar="KIZU_BACKBONES",
        help="Directory of brought backbones.",
        default_factory=lambda: Path.home() / ".kizu" / "backbones",
    ),
]


@backbone_app.command("import")
def import_command(
    *,
    file: Annotated[Path, typer.Argument(help="ONNX file: float32 (B, 3, H, W) to feature maps.")],
    name: Annotated[str, typer.Option(help="What to call it.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights.")],
    mean: Annotated[str, typer.Option(help="Three numbers, comma-separated, on a 0..1 scale.")],
    std: Annotated[str, typer.Option(help="Three numbers, comma-separated.")],
    stages: Annotated[
        str, typer.Option(help="Outputs to keep, comma-separated; all by default.")
    ] = "",
    training_data: Annotated[str, typer.Option(help="What it was trained on.")] = "unknown",
    backbones: BackbonesOption,
) -> None:
    """Bring a backbone of one's own; its normalisation is folded into the graph."""
    path = import_backbone(
        file,
        backbones,
        name=name,
        mean=_three(mean, "--mean"),
        std=_three(std, "--std"),
        stages=[stage for stage in stages.split(",") if stage],
        licence=licence,
        training_data=training_data,
    )
    typer.echo(path)


@backbone_app.command("pull")
def pull_command(
    *,
    architecture: Annotated[str, typer.Argument(help="A timm model.")] = "efficientnet_b4",
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Local state dict, for a machine without a network.")
    ] = None,
    backbones: BackbonesOption,
) -> None:
    """Export a timm model as a backbone, with weights from its hub or from a file."""
    typer.echo(pull_backbone(architecture, backbones, name=name, weights=weights))


@backbone_app.command("filters")
def filters_command(
    *,
    name: Annotated[str, typer.Option(help="What to call it.")] = "filters",
    backbones: BackbonesOption,
) -> None:
    """Make a backbone of oriented filters, by formula: for demos and tests, not for parts."""
    typer.echo(filter_backbone(backbones, name=name))


@backbone_app.command("list")
def list_command(backbones: BackbonesOption) -> None:
    """List the backbones at hand."""
    table = Table("Name", "Stages (stride × channels)", "Licence", "Training data", "Origin")
    for path in list_backbones((EMBEDDED, backbones)):
        manifest = open_backbone(path).manifest
        stages = ", ".join(
            f"{stage.name} {stage.stride}×{stage.channels}" for stage in manifest.stages
        )
        table.add_row(
            manifest.name, stages, manifest.licence, manifest.training_data, manifest.origin
        )
    Console().print(table)


def _three(text: str, option: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise typer.BadParameter(f"{option} takes three numbers, such as 0.485,0.456,0.406")
    return values
