"""`kizu-train retrain`."""

from pathlib import Path
from typing import Annotated

import typer

from models.bundle import open_bundle
from models.sample import open_snapshot
from models.signature import Signer
from training import progress
from training.cli.options import CacheOption, DeviceOption, SeedOption, SigningOption, metrics_line
from training.data.folders import read_mvtec
from training.directories import Directories
from training.finetuning.retrain import RejectBy, RetrainSettings, retrain


def retrain_command(
    *,
    snapshot: Annotated[Path, typer.Option(help="Directory made by `kizu snapshot`.")],
    champion: Annotated[
        Path, typer.Option(help="Bundle <store>/<recipe>/<version> to start from.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder with the good parts that the recipe was fitted on.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(envvar="KIZU_STORE", help="The champion's store by default.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1)] = RetrainSettings.steps,
    alpha_pixels: Annotated[
        float, typer.Option(help="Weight of the push where a mask says where.")
    ] = RetrainSettings.alpha_pixels,
    alpha_images: Annotated[
        float, typer.Option(help="Weight of the push where only the image is labelled.")
    ] = RetrainSettings.alpha_images,
    share: Annotated[
        float,
        typer.Option(
            min=0.0, help="Weight of what knows the labelled defects, against all other branches."
        ),
    ] = RetrainSettings.share,
    reject_by: Annotated[
        RejectBy, typer.Option(help="rate: the champion's false rejects; f1: the best on labels.")
    ] = "rate",
    seed: SeedOption = 0,
    areas: Annotated[
        Path | None,
        typer.Option(
            help="Mask image of where the recipe counts defects, white: thresholds are of it alone."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted retraining.")
    ] = False,
    cache: CacheOption,
    device: DeviceOption = "auto",
    signing_key: SigningOption = None,
) -> None:
    """Learn operators' labels; writes a candidate only if it is not worse than the champion."""
    reporter = progress.reporter()
    settings = RetrainSettings(
        alpha_pixels=alpha_pixels,
        alpha_images=alpha_images,
        share=share,
        steps=steps,
        seed=seed,
        reject_by=reject_by,
        device=device,
    )
    signer = Signer(signing_key) if signing_key else None
    try:
        result = retrain(
            open_snapshot(snapshot),
            open_bundle(champion),
            Directories(store or champion.resolve().parent.parent, cache, signer),
            settings,
            data=read_mvtec(data) if data else None,
            areas=areas,
            resume=resume,
            reporter=reporter,
        )
    except KeyboardInterrupt:
        reporter.say("Interrupted. The same command with --resume goes on from here.")
        raise typer.Exit(130) from None
    reporter.say(f"Champion:  {metrics_line(result.comparison.champion.metrics)}")
    reporter.say(f"Candidate: {metrics_line(result.comparison.candidate.metrics)}")
    if result.path is None:
        reporter.say(f"No candidate was written. {result.comparison} Report: {result.report}")
        raise typer.Exit(1)
    reporter.say(f"{result.comparison} Report: {result.report}")
    typer.echo(result.path)
