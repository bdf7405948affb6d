"""What all command lines have: `--version`; and how they end: a person's mistake is one message
and 2, never a traceback."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from models.bundle import FORMAT_VERSION
from models.commit import commit
from models.errors import KizuError


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"kizu {version('kizu')} ({commit()}, bundle format {FORMAT_VERSION})")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option(
        "--version", callback=_version, is_eager=True, help="Version, commit, bundle format."
    ),
]


def run(command: Callable[[], None]) -> None:
    """Call a command line's `command` and turn what a person can mend into a message."""
    try:
        command()
    except KizuError as error:
        _end(str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _end(f"{place}{error.strerror or error}. Check the path, its permissions and the disk.")


def _end(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
