"""What all commands share: where things are, and the settings that follow."""

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from service.identity import Identity
from service.settings import Settings, SettingsError

Store = Annotated[Path | None, typer.Option(help="Directory of bundles (KIZU_STORE).")]
Data = Annotated[Path | None, typer.Option(help="Directory of images and rows (KIZU_DATA).")]
DatabaseUrl = Annotated[str | None, typer.Option(help="SQLAlchemy URL (KIZU_DATABASE).")]


def at_the_terminal() -> Identity:
    """Who runs a command, as the machine knows them."""
    return Identity(getpass.getuser(), "admin", "command")


def read_settings(**given: Any) -> Settings:
    """The variables' settings, and what is given instead. Raises SettingsError."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = "; ".join(
            f"KIZU_{str(item['loc'][0]).upper()} {item['input']!r}: {item['msg']}"
            for item in error.errors()
        )
        raise SettingsError(
            f"{wrong}.", remedy="See the table of settings in deploy/ADMINISTRATOR.md."
        ) from error
