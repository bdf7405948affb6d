"""`kizu-train fit`."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from models.backbone import EMBEDDED, PROCEDURAL, find_backbone
from models.image import PixelContract, Resize
from models.signature import Signer
from training import progress
from training.backbones.fused_backbone import JOINT
from training.backbones.wheels import DEFAULT as DEFAULT_BACKBONE
from training.backbones.wheels import at_hand, obtain_backbone
from training.calibration.thresholds import Rates
from training.cli.options import (
    BackbonesOption,
    CacheOption,
    DeviceOption,
    SeedOption,
    SigningOption,
    StoreOption,
    metrics_line,
)
from training.data.drawn_defects import DRAWINGS
from training.data.folders import joined, read_mvtec
from training.data.folders import without as leave_out
from training.directories import Directories
from training.engine.distributed import process_count
from training.errors import TrainingError
from training.fitting.backbone_choice import try_backbones
from training.fitting.fit import fit
from training.fitting.settings import FitSettings, parse_size
from training.methods.registry import DEFAULT as DEFAULT_PRESET
from training.methods.registry import METHODS
from training.methods.train_context import ScheduleName
from training.networks.efficientnet_lite import VARIANTS

AUTO = "auto"  # a backbone that is chosen by the parts
PROCEDURAL_COSTS = (
    "Note: procedural has only seen drawn images. With 18 images of screws it passes 62 of 73 that "
    "lack one, and of 96 defective drawn caps 5, where efficientnet_lite0 passes none of either. "
    "`kizu-train backbone score` compares backbones on your parts."
)


def fit_command(
    *,
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Folder with train/good/, optionally test/; of several, one model learns all."
        ),
    ],
    recipe: Annotated[str, typer.Option(help="Name of the inspected view of one product.")],
    backbone: Annotated[
        str,
        typer.Option(
            help="Name of a backbone, see `backbone list`; NAME+NAME fuses two. auto: "
            f"{DEFAULT_BACKBONE}; where others are at hand, too, these are compared on the good "
            "parts and on defects drawn on them."
        ),
    ] = AUTO,
    store: StoreOption = Path("models/bundles"),
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = DEFAULT_PRESET,
    schedule: Annotated[
        ScheduleName, typer.Option(help="short: as long as each preset needs; paper: 500 epochs.")
    ] = "short",
    steps: Annotated[int | None, typer.Option(min=1, help="Another number of steps.")] = None,
    size: Annotated[
        str,
        typer.Option(help="The input in pixels: a side, WIDTHxHEIGHT, or auto, by the images."),
    ] = "auto",
    budget_ms: Annotated[
        float,
        typer.Option(
            min=1, help="Milliseconds that an image may take on this machine, with --size auto."
        ),
    ] = FitSettings.budget_ms,
    grid: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Cells along the shorter side, which divide it: about 16, of tiles one per 16 px.",
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            min=32,
            help="Let the backbone see large images in tiles of this side, in bounded memory.",
        ),
    ] = None,
    false_review: Annotated[
        float, typer.Option(help="Share of good parts that may be sent to review.")
    ] = Rates.review,
    false_reject: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected.")
    ] = Rates.reject,
    anomalies: Annotated[
        str,
        typer.Option(help=f"Kinds to draw and learn from, among {', '.join(DRAWINGS)}."),
    ] = "",
    external: Annotated[
        Path | None, typer.Option(help="Folder of images of other things, to learn from.")
    ] = None,
    stages: Annotated[
        str, typer.Option(help="Backbone stages, comma-separated; all by default.")
    ] = "",
    colour: Annotated[
        Literal["rgb", "grey"], typer.Option(help="What the camera delivers.")
    ] = "rgb",
    bit_depth: Annotated[
        Literal["8", "10", "12", "14", "16"], typer.Option(help="Significant bits of a sample.")
    ] = "8",
    window: Annotated[
        str,
        typer.Option(
            help="Of samples of more than 8 bits, BLACK:WHITE, the levels that become 0 and 255; "
            "the whole range by default."
        ),
    ] = "",
    resize: Annotated[
        Resize, typer.Option(help="Of images of other proportions: stretch, or add borders.")
    ] = "stretch",
    align: Annotated[
        Literal["auto", "none", "shift", "rotate"],
        typer.Option(
            help="Bring parts that lie shifted, or shifted and turned, to one place; auto where "
            "good parts lie in many ways."
        ),
    ] = "auto",
    roi: Annotated[
        Path | None, typer.Option(help="Mask image of what is inspected: white, the rest black.")
    ] = None,
    without: Annotated[
        list[Path] | None,
        typer.Option("--without", help="An image of a good part to leave out; several times."),
    ] = None,
    seed: SeedOption = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted fit.")
    ] = False,
    backbones: BackbonesOption,
    cache: CacheOption,
    device: DeviceOption = "auto",
    signing_key: SigningOption = None,
) -> None:
    """Fit a recipe on images of good parts and write a bundle."""
    reporter = progress.reporter()
    settings = FitSettings(
        recipe=recipe,
        preset=preset,
        schedule=schedule,
        size=parse_size(size),
        budget_ms=budget_ms,
        grid=grid,
        tile=tile,
        stages=_names(stages),
        rates=Rates(review=false_review, reject=false_reject),
        anomalies=_names(anomalies),
        external=external,
        resize=resize,
        align=align,
        roi=roi,
        pixels=_pixels(colour, int(bit_depth), window),
        seed=seed,
        steps=steps,
        device=device,
    )
    signer = Signer(signing_key) if signing_key else None
    roots = (EMBEDDED, backbones)
    for name in backbone.split(JOINT):
        if name not in (AUTO, *VARIANTS):  # a wrong name is said before anything is read
            find_backbone(name, roots)
    directories = Directories(store, cache, signer)
    try:
        products = [read_mvtec(folder) for folder in data]
        given = products[0] if len(products) == 1 else joined(products, data[0].parent)
        given = leave_out(given, without or [])
        names = at_hand(roots) if backbone == AUTO else [backbone]
        known = [obtain_backbone(name, roots) for name in names]
        frozen = known[0]
        if len(known) > 1:
            if process_count() > 1:
                raise TrainingError(
                    "Several processes could choose different backbones.",
                    remedy=f"Name one by --backbone, among {', '.join(names)}.",
                )
            choice = try_backbones(
                replace(given, test=()), known, settings, directories, reporter=reporter
            )
            reporter.say(str(choice))
            given = replace(given, notes=(*given.notes, str(choice)))
            frozen = choice.best.backbone
        if frozen.manifest.name == PROCEDURAL:
            reporter.say(PROCEDURAL_COSTS)
        fitted = fit(given, frozen, settings, directories, resume=resume, reporter=reporter)
    except KeyboardInterrupt:
        reporter.say("Interrupted. The same command with --resume goes on from here.")
        raise typer.Exit(130) from None
    test = fitted.trained.test
    if test and test.metrics:
        reporter.say(metrics_line(test.metrics))
    reporter.say(f"Fitted in {fitted.seconds:.0f} s. Report: {fitted.path / 'report.html'}")
    typer.echo(fitted.path)


def _pixels(colour: str, bit_depth: int, window: str) -> PixelContract:
    """What the camera delivers. Raises TrainingError for a window that makes no sense."""
    levels = re.fullmatch(r"(\d+):(\d+)", window)
    if window and not levels:
        raise TrainingError(f"{window} is no window.", remedy="Name --window as 200:3500.")
    given = {"colour": colour, "bit_depth": bit_depth}
    try:
        return PixelContract.model_validate(
            given | ({"window": (int(levels[1]), int(levels[2]))} if levels else {})
        )
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise TrainingError(
            f"--window {window} cannot be used: {reason}.",
            remedy=f"Choose levels of --bit-depth {bit_depth}, or another --bit-depth.",
        ) from error


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())
