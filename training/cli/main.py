"""`kizu-train`: fit, retrain, evaluate, repeatability, benchmark, backbone, demo-data."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from models.backbone import EMBEDDED, PROCEDURAL, find_backbone
from models.bundle import MODEL, SIGNATURE, Bundle, open_bundle
from models.command import VersionOption, run
from models.durable import write_file
from models.image import PixelContract, Resize
from models.sample import open_snapshot
from models.session import Device, open_session
from models.signature import Signer
from training import progress
from training.backbones.wheels import DEFAULT as DEFAULT_BACKBONE
from training.backbones.wheels import at_hand, obtain_backbone
from training.benchmarks.repeatability import read_parts, repeatability
from training.calibration.thresholds import Rates
from training.cli.backbone import BackbonesOption, backbone_app
from training.cli.benchmark import benchmark_app
from training.data.demo_product import write_demo
from training.data.drawn_defects import DRAWINGS
from training.data.folders import Dataset, joined, read_mvtec
from training.data.folders import without as leave_out
from training.directories import Directories
from training.engine.distributed import leaving_at_once
from training.errors import TrainingError
from training.evaluation.scoring import evaluate, score_images
from training.evaluation.verdicts import by_label
from training.finetuning.retrain import RejectBy, RetrainSettings, champion_source, retrain
from training.fitting.backbone_choice import try_backbones
from training.fitting.fit import fit
from training.fitting.settings import FitSettings, parse_size
from training.methods.registry import DEFAULT as DEFAULT_PRESET
from training.methods.registry import METHODS
from training.methods.train_context import ScheduleName
from training.networks.efficientnet_lite import VARIANTS

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Train Kizu's models: good parts in, verified bundles out.",
)  # fmt: skip
app.add_typer(backbone_app, name="backbone")
app.add_typer(benchmark_app, name="benchmark")


@app.callback()
def _whole(*, version: VersionOption = False) -> None:
    """Options before any command."""


AUTO = "auto"  # a backbone that is chosen by the parts
PROCEDURAL_COSTS = (
    "Note: procedural has only seen drawn images. `kizu-train backbone score` compares it with "
    "others on your parts."
)

StoreOption = Annotated[
    Path, typer.Option("--store", envvar="KIZU_STORE", help="Directory of bundles.")
]
CacheOption = Annotated[
    Path,
    typer.Option(
        "--cache",
        envvar="KIZU_CACHE",
        help="Directory of cached features.",
        default_factory=lambda: Path.home() / ".kizu" / "features",
    ),
]
SigningOption = Annotated[
    Path | None,
    typer.Option(
        "--signing-key",
        envvar="KIZU_SIGNING_KEY",
        help="PEM file of the Ed25519 private key that signs the bundle.",
    ),
]
SeedOption = Annotated[int, typer.Option(help="The same seed gives the same losses.")]
DeviceOption = Annotated[
    Device, typer.Option("--device", envvar="KIZU_DEVICE", help="Where the backbone runs.")
]


@app.command("fit")
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
            help="Name of a backbone, see `backbone list`; auto tries those at hand on the good "
            "parts and on defects drawn on them."
        ),
    ] = DEFAULT_BACKBONE,
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
    if backbone not in (AUTO, *VARIANTS):  # a wrong name is said before anything is read
        find_backbone(backbone, roots)
    if backbone == PROCEDURAL:
        reporter.say(PROCEDURAL_COSTS)
    directories = Directories(store, cache, signer)
    try:
        products = [read_mvtec(folder) for folder in data]
        given = products[0] if len(products) == 1 else joined(products, data[0].parent)
        given = leave_out(given, without or [])
        if backbone == AUTO:
            known = [obtain_backbone(name, roots) for name in at_hand(roots)]
            choice = try_backbones(
                replace(given, test=()), known, settings, directories, reporter=reporter
            )
            reporter.say(str(choice))
            given = replace(given, notes=(*given.notes, str(choice)))
            frozen = choice.best.backbone
        else:
            frozen = obtain_backbone(backbone, roots)
        fitted = fit(given, frozen, settings, directories, resume=resume, reporter=reporter)
    except KeyboardInterrupt:
        reporter.say("Interrupted. The same command with --resume goes on from here.")
        raise typer.Exit(130) from None
    test = fitted.trained.test
    if test and test.metrics:
        reporter.say(_metrics_line(test.metrics))
    reporter.say(f"Fitted in {fitted.seconds:.0f} s. Report: {fitted.path / 'report.html'}")
    typer.echo(fitted.path)


@app.command("retrain")
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
            resume=resume,
            reporter=reporter,
        )
    except KeyboardInterrupt:
        reporter.say("Interrupted. The same command with --resume goes on from here.")
        raise typer.Exit(130) from None
    reporter.say(f"Champion:  {_metrics_line(result.comparison.champion.metrics)}")
    reporter.say(f"Candidate: {_metrics_line(result.comparison.candidate.metrics)}")
    if result.path is None:
        reporter.say(f"No candidate was written. {result.comparison} Report: {result.report}")
        raise typer.Exit(1)
    reporter.say(f"{result.comparison} Report: {result.report}")
    typer.echo(result.path)


@app.command("sign")
def sign_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle <store>/<recipe>/<version>.")],
    signing_key: Annotated[
        Path,
        typer.Option(envvar="KIZU_SIGNING_KEY", help="PEM file of an Ed25519 private key."),
    ],
) -> None:
    """Vouch for a bundle: whoever trusts the key's owner serves it."""
    opened = open_bundle(bundle)
    write_file(bundle / SIGNATURE, Signer(signing_key).sign(opened.digest))
    typer.echo(f"signed: {opened.digest}")


@app.command("evaluate")
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


@app.command("repeatability")
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


@app.command("demo-data")
def demo_data_command(
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist.")],
    good: Annotated[int, typer.Option(min=2, help="Good parts for training.")] = 260,
    test_good: Annotated[int, typer.Option(min=1)] = 20,
    per_defect: Annotated[int, typer.Option(min=1)] = 8,
    size: Annotated[int, typer.Option(min=64, help="Side in pixels.")] = 512,
    loose: Annotated[
        bool, typer.Option("--loose", help="Parts that lie turned in any way.")
    ] = False,
    seed: SeedOption = 0,
) -> None:
    """Draw a demo product: a printed metal cap, good and with three kinds of defects."""
    reporter = progress.reporter()
    total = good + test_good + 3 * per_defect
    with reporter.bar("Drawing", total) as advance:
        write_demo(
            out, seed=seed, good=good, test_good=test_good, per_defect=per_defect, size=size,
            loose=loose, progress=lambda done, _: advance(done, ""),
        )  # fmt: skip
    typer.echo(out)


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


def _metrics_line(metrics: dict[str, float]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {100 * value:.1f}" for name, value in metrics.items()
    )


def main() -> None:
    """Run the command line."""
    with leaving_at_once():
        run(app)
