"""`kizu user` and `kizu key`: who may come in. A running service notices within seconds."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import Session

from service.cli_settings import Data, DatabaseUrl, at_the_terminal, read_settings
from service.identity import Role
from service.store import accounts
from service.store.audit import acts
from service.store.database import open_database

user_app = typer.Typer(no_args_is_help=True, help="People who log in.")
key_app = typer.Typer(no_args_is_help=True, help="Keys of cameras and other programs.")

UserName = Annotated[str, typer.Argument(help="By which one logs in, and signs.")]
RoleOption = Annotated[
    Role, typer.Option(help="Each may what those before it may: camera, operator, engineer, admin.")
]


@user_app.command("add")
def add_user_command(
    name: UserName,
    role: RoleOption,
    by_provider: Annotated[
        bool, typer.Option("--by-provider", help="By KIZU_OIDC_ISSUER alone, without a password.")
    ] = False,
    data: Data = None,
    database: DatabaseUrl = None,
) -> None:
    """Let somebody log in; asks for a password, or reads a line where nobody sits."""
    if role == "camera":
        raise accounts.AccountError(
            "A camera does not log in.", remedy="Give it a key: kizu key add NAME --role camera."
        )
    with _session(data, database) as session:
        accounts.add_user(session, name, role, None if by_provider else _password())
    typer.echo(f"{name}: {role}")


@user_app.command("password")
def password_command(name: UserName, data: Data = None, database: DatabaseUrl = None) -> None:
    """Give a user another password, and end where they are logged in."""
    with _session(data, database) as session:
        accounts.change_user(session, name, password=_password())
    typer.echo(name)


@user_app.command("role")
def role_command(
    name: UserName, role: RoleOption, data: Data = None, database: DatabaseUrl = None
) -> None:
    """Give a user another role, and end where they are logged in."""
    with _session(data, database) as session:
        accounts.change_user(session, name, role=role)
    typer.echo(f"{name}: {role}")


@user_app.command("remove")
def remove_user_command(name: UserName, data: Data = None, database: DatabaseUrl = None) -> None:
    """Let somebody in no more; what they did stays under their name."""
    with _session(data, database) as session:
        accounts.remove_user(session, name)
    typer.echo(name)


@user_app.command("list")
def list_users_command(data: Data = None, database: DatabaseUrl = None) -> None:
    """All who may log in."""
    table = Table("Name", "Role", "Since", "Logs in by")
    with _session(data, database) as session:
        for user in accounts.users(session):
            way = "password" if user.password else "provider"
            table.add_row(user.name, user.role, f"{user.created_at:%Y-%m-%d %H:%M}", way)
    Console().print(table)


@key_app.command("add")
def add_key_command(
    name: Annotated[str, typer.Argument(help="Whose key it is, such as a camera's name.")],
    role: RoleOption = "camera",
    per_second: Annotated[
        float | None, typer.Option(min=0.1, help="Most requests a second; any number by default.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(min=1, help="Largest body; KIZU_MAX_BODY_BYTES by default.")
    ] = None,
    data: Data = None,
    database: DatabaseUrl = None,
) -> None:
    """Make a key and print it, this once: sent as `Authorization: Bearer KEY`."""
    with _session(data, database) as session:
        key = accounts.add_key(session, name, role, per_second=per_second, max_bytes=max_bytes)
    typer.echo(key)


@key_app.command("revoke")
def revoke_command(
    name: Annotated[str, typer.Argument()], data: Data = None, database: DatabaseUrl = None
) -> None:
    """Let a key open nothing any more."""
    with _session(data, database) as session:
        accounts.revoke_key(session, name)
    typer.echo(name)


@key_app.command("list")
def list_keys_command(data: Data = None, database: DatabaseUrl = None) -> None:
    """All keys in force; what they are is kept nowhere."""
    table = Table("Name", "Role", "Since", "Most a second", "Largest body")
    with _session(data, database) as session:
        for key in accounts.keys(session):
            table.add_row(
                key.name, key.role, f"{key.created_at:%Y-%m-%d %H:%M}",
                f"{key.per_second:g}" if key.per_second else "",
                f"{key.max_bytes:,}" if key.max_bytes else "",
            )  # fmt: skip
    Console().print(table)


@contextmanager
def _session(data: Data, database: DatabaseUrl) -> Iterator[Session]:
    settings = read_settings(data=data, database=database)
    settings.data.mkdir(parents=True, exist_ok=True)
    engine = open_database(settings.database_url)
    try:
        with acts(at_the_terminal()), Session(engine) as session, session.begin():
            yield session
    finally:
        engine.dispose()


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return password
