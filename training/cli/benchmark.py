"""`kizu-train benchmark`: methods, verdicts, curve, calibration, line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from models.backbone import EMBEDDED, MANIFEST, Backbone, open_backbone
from models.durable import write_file
from training.backbones.sources import IMAGENET_MEAN, IMAGENET_STD, import_backbone
from training.backbones.wheels import DEFAULT as DEFAULT_BACKBONE
from training.backbones.wheels import obtain_backbone
from training.benchmarks.benchmark import Benchmark
from training.benchmarks.calibration_rates import CalibrationBenchmark
from training.benchmarks.calibration_rates import table as calibration_table
from training.benchmarks.few_labels import EXAMPLES
from training.benchmarks.line import LineBenchmark, line_cases
from training.benchmarks.line import table as line_table
from training.benchmarks.page import render
from training.benchmarks.tables import comma_separated, markdown
from training.benchmarks.verdict_cases import curve_cases, verdict_cases
from training.benchmarks.verdict_curves import learning_curves, line_curves
from training.benchmarks.verdict_curves import page as curves_page
from training.benchmarks.verdicts import VerdictBenchmark
from training.benchmarks.verdicts import table as verdict_table
from training.cli.options import BackbonesOption
from training.data.folders import Dataset, read_mvtec
from training.data.public_sets import left_out_images, read_categories, read_cifar10, read_visa
from training.errors import TrainingError
from training.methods.registry import DEFAULT, METHODS
from training.progress import TerminalReporter

# What is compared where nobody says otherwise.
USUAL = f"{DEFAULT},adtr-whitened,adtr,padim,patchcore,knn"
USUAL_CIFAR = "image-knn,rotation,pooled-gaussian,adtr-small"
_FEW = [f"{how}-{count}" for how in ("masks", "images") for count in (10, 5, 3, 1)]
USUAL_FEW = ",".join(
    [DEFAULT, *_FEW, *(f"{each}-unseen" for each in _FEW)]
    + [f"{how}-{count}" for how in ("active", "random") for count in (20, 50)]
)


benchmark_app = typer.Typer(
    no_args_is_help=True, help="Measure methods and verdicts, on public sets or on your own."
)

SharedOption = Annotated[
    Path, typer.Option(envvar="KIZU_SHARED", help="Folder with tile, cifar10 and backbones.")
]
JsonOption = Annotated[
    Path, typer.Option("--json", help="Every figure; an interrupted run goes on.")
]
OutOption = Annotated[Path, typer.Option(help="Folder for models, features, CSV and page.")]
CasesArgument = Annotated[
    list[str] | None, typer.Argument(help="Some of the cases, by name; all by default.")
]
PresetOption = Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")]
MeasuredBackboneOption = Annotated[
    str, typer.Option(help="Name of a backbone; mobilenet_v2 is also found in --shared.")
]
Case = TypeVar("Case")
OUT, SHARED = Path(".kizu/benchmark"), Path("../shared")


@benchmark_app.command("methods")
def methods_command(
    *,
    sets: Annotated[
        list[str],
        typer.Argument(
            help="mvtec, visa, cifar10, tile, or folders in the MVTec layout; fewshot is tile "
            "with a few labels."
        ),
    ],
    json_file: JsonOption,
    out: OutOption = OUT,
    methods: Annotated[
        str,
        typer.Option(
            help=f"Of {', '.join(METHODS)}, comma-separated; NAME+confetti learns drawn anomalies "
            f"besides, NAME+external other images. What --champion learns from labels: {EXAMPLES}; "
            "…-unseen tests kinds of defects that were not labelled."
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")] = 3,
    backbone: MeasuredBackboneOption = DEFAULT_BACKBONE,
    champion: Annotated[str, typer.Option(help="What learns labels.")] = DEFAULT,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Shorter trainings, to try it out.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=32, help="Side of the input in pixels, from the images by default."),
    ] = None,
    grid: Annotated[int | None, typer.Option(min=2, help="Cells per side.")] = None,
    unified: Annotated[
        bool, typer.Option("--unified", help="One model for all categories of a set.")
    ] = False,
    external: Annotated[
        Path | None, typer.Option(help="Images of other things, for methods with +external.")
    ] = None,
    shared: SharedOption = SHARED,
    mvtec: Annotated[
        Path | None, typer.Option(envvar="KIZU_MVTEC", help="MVTec-AD as unpacked.")
    ] = None,
    visa: Annotated[Path | None, typer.Option(envvar="KIZU_VISA", help="VisA as unpacked.")] = None,
    cifar10: Annotated[
        Path | None,
        typer.Option(envvar="KIZU_CIFAR10", help="CIFAR-10: a zip, or the original batches."),
    ] = None,
    train_images: Annotated[
        int | None, typer.Option(min=20, help="Of CIFAR-10, so many good images of each class.")
    ] = None,
    left_out: Annotated[
        int,
        typer.Option(
            min=0, max=8, help="Of CIFAR-10, so many classes are what +external learns, not tested."
        ),
    ] = 0,
    backbones: BackbonesOption,
) -> None:
    """Fit methods on the good parts of each product, and measure them on its test images."""
    given = {"mvtec": mvtec, "visa": visa, "cifar10": cifar10}

    def place(name: str, default: Path | None = None) -> Path:
        found = given.get(name) or default
        if found is None:
            raise TrainingError(
                f"Where is {name}?", remedy=f"Name its folder with --{name} or KIZU_{name.upper()}."
            )
        return found

    def read(name: str) -> dict[str, Dataset]:
        match name:
            case "mvtec":
                return read_categories(place("mvtec"))
            case "visa":
                return read_visa(place("visa"), out / "visa")
            case "cifar10":
                source = place("cifar10", shared / "data" / "cifar10_jpeg.zip")
                return read_cifar10(
                    source, out / "cifar10", train_images=train_images, left_out=left_out
                )
            case "tile" | "fewshot":
                return {"tile": read_mvtec(shared / "data" / "magnetic_tile")}
            case folder:
                return read_categories(Path(folder))

    if len({Path(name).name for name in sets}) < len(sets):
        raise TrainingError(
            "Two of the sets have the same name.", remedy="Run them apart, each with its own --out."
        )
    if left_out and (external or "cifar10" not in sets):
        raise TrainingError(
            "--left-out makes external images of CIFAR-10's classes.",
            remedy="Run it on cifar10, without --external.",
        )
    reporter = TerminalReporter()
    usual = {"cifar10": USUAL_CIFAR, "fewshot": USUAL_FEW}.get(",".join(sets), USUAL)
    benchmark = Benchmark(
        sets={Path(name).name: read(name) for name in sets},
        backbone=_backbone(backbone, backbones, shared, out),
        methods=[name.strip() for name in (methods or usual).split(",")],
        seeds=range(seeds),
        out=out,
        reporter=reporter,
        steps=steps,
        champion=champion,
        size=size,
        grid=grid,
        unified=unified,
        external=left_out_images(out / "cifar10", left_out) if left_out else external,
    )
    results = benchmark.run(json_file)
    write_file(out / "benchmark.csv", comma_separated(results).encode())
    write_file(out / "benchmark.html", render(results, out).encode())
    reporter.say(f"Pictures: {out / 'benchmark.html'}")
    typer.echo(markdown(results))


@benchmark_app.command("verdicts")
def verdicts_command(
    *,
    cases: CasesArgument = None,
    json_file: JsonOption,
    out: OutOption = OUT,
    seeds: Annotated[
        int, typer.Option(min=1, help="How many seeds, from 0; each splits the parts anew.")
    ] = 3,
    preset: PresetOption = DEFAULT,
    backbone: MeasuredBackboneOption = DEFAULT_BACKBONE,
    shared: SharedOption = SHARED,
    backbones: BackbonesOption,
) -> None:
    """Count good parts stopped and defects passed by the default fit, at its own thresholds."""
    benchmark = VerdictBenchmark(
        _chosen(cases, verdict_cases(shared, out / "data")),
        _backbone(backbone, backbones, shared, out),
        seeds, out, TerminalReporter(), preset,
    )  # fmt: skip
    typer.echo(verdict_table(benchmark.run(json_file)))


@benchmark_app.command("curve")
def curve_command(
    *,
    cases: CasesArgument = None,
    json_file: JsonOption,
    out: OutOption = OUT,
    seeds: Annotated[int, typer.Option(min=1, help="How many draws of good parts.")] = 3,
    preset: PresetOption = DEFAULT,
    backbone: MeasuredBackboneOption = DEFAULT_BACKBONE,
    shared: SharedOption = SHARED,
    backbones: BackbonesOption,
) -> None:
    """Count verdicts of the default fit against the number of good parts it learns."""
    reporter = TerminalReporter()
    benchmark = VerdictBenchmark(
        _chosen(cases, curve_cases(shared, out / "data")),
        _backbone(backbone, backbones, shared, out),
        seeds, out, reporter, preset,
    )  # fmt: skip
    results = benchmark.run(json_file)
    write_file(out / "curve.html", curves_page(learning_curves(results)).encode())
    reporter.say(f"Plots: {out / 'curve.html'}")
    typer.echo(verdict_table(results))


@benchmark_app.command("calibration")
def calibration_command(
    *,
    json_file: JsonOption,
    out: OutOption = OUT,
    draws: Annotated[int, typer.Option(min=1, help="Of each number of good parts.")] = 30,
    preset: PresetOption = DEFAULT,
    backbone: MeasuredBackboneOption = DEFAULT_BACKBONE,
    shared: SharedOption = SHARED,
    backbones: BackbonesOption,
) -> None:
    """Count how many drawn good parts lie beyond thresholds that promise 5 and 1 %."""
    benchmark = CalibrationBenchmark(
        _backbone(backbone, backbones, shared, out), draws, out, TerminalReporter(), preset=preset
    )
    typer.echo(calibration_table(benchmark.run(json_file)))


@benchmark_app.command("line")
def line_command(
    *,
    cases: CasesArgument = None,
    json_file: JsonOption,
    out: OutOption = OUT,
    seeds: Annotated[int, typer.Option(min=1, help="How many orders of the parts.")] = 3,
    every: Annotated[int, typer.Option(min=1, help="Labels until the next retraining.")] = 50,
    retrainings: Annotated[int, typer.Option(min=1, help="At most.")] = 3,
    only_good: Annotated[
        bool, typer.Option("--only-good", help="Label false alarms alone, no defects.")
    ] = False,
    preset: PresetOption = DEFAULT,
    backbone: MeasuredBackboneOption = DEFAULT_BACKBONE,
    shared: SharedOption = SHARED,
    backbones: BackbonesOption,
) -> None:
    """Let another lot come, label what is reviewed, retrain: false alarms and escapes over time."""
    reporter = TerminalReporter()
    benchmark = LineBenchmark(
        _chosen(cases, line_cases(shared, out / "data")),
        _backbone(backbone, backbones, shared, out),
        seeds, out, reporter, preset, every, retrainings, only_good,
    )  # fmt: skip
    results = benchmark.run(json_file)
    write_file(out / "line.html", curves_page(line_curves(results)).encode())
    reporter.say(f"Plots: {out / 'line.html'}")
    typer.echo(line_table(results))


def _chosen(names: list[str] | None, known: Mapping[str, Case]) -> list[Case]:
    """The cases with these names, or all. Raises TrainingError for one that there is not."""
    if unknown := set(names or ()) - set(known):
        raise TrainingError(
            f"There is no case {', '.join(sorted(unknown))}.",
            remedy=f"Choose among {', '.join(known)}.",
        )
    return [known[name] for name in names or known]


def _backbone(name: str, backbones: Path, shared: Path, out: Path) -> Backbone:
    """One that is installed, or one of the ImageNet backbones among the shared files."""
    file = shared / "backbones" / f"{name}.onnx"
    if not file.exists():
        return obtain_backbone(name, (EMBEDDED, backbones))
    directory = out / "backbones" / name
    if not (directory / MANIFEST).exists():
        import_backbone(
            file, out / "backbones", name=name, mean=IMAGENET_MEAN, std=IMAGENET_STD,
            licence="Apache-2.0", training_data="ImageNet-1k",
        )  # fmt: skip
    return open_backbone(directory)
