"""`kizu-train`: fit, retrain, evaluate, repeatability, benchmark, backbone, sign, demo-data."""

from pathlib import Path
from typing import Annotated

import typer

from models.bundle import SIGNATURE, open_bundle
from models.command import VersionOption, run
from models.durable import write_file
from models.signature import Signer
from training import progress
from training.cli.backbone import backbone_app
from training.cli.benchmark import benchmark_app
from training.cli.evaluate import evaluate_command, repeatability_command
from training.cli.fit import fit_command
from training.cli.options import SeedOption
from training.cli.retrain import retrain_command
from training.data.demo_product import write_demo
from training.engine.distributed import leaving_at_once

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Train Kizu's models: good parts in, verified bundles out.",
)  # fmt: skip
app.command("fit")(fit_command)
app.command("retrain")(retrain_command)
app.command("evaluate")(evaluate_command)
app.command("repeatability")(repeatability_command)
app.add_typer(backbone_app, name="backbone")
app.add_typer(benchmark_app, name="benchmark")


@app.callback()
def _whole(*, version: VersionOption = False) -> None:
    """Options before any command."""


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


def main() -> None:
    """Run the command line."""
    with leaving_at_once():
        run(app)
