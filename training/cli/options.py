"""Options that several commands have, and how they show figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from models.session import Device

BackbonesOption = Annotated[
    Path,
    typer.Option(
        "--backbones",
        envvar="KIZU_BACKBONES",
        help="Directory of brought backbones.",
        default_factory=lambda: Path.home() / ".kizu" / "backbones",
    ),
]
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


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Metrics in percent, for a terminal."""
    return ", ".join(
        f"{name.replace('_', ' ')} {100 * value:.1f}" for name, value in metrics.items()
    )
