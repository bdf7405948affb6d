"""`kizu rescore`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy.orm import Session

from models.bundle import Verdict, open_bundle
from models.signature import Trust
from service.cli_settings import Data, DatabaseUrl, Store, read_settings
from service.recipes import Recipes
from service.settings import SettingsError
from service.store import records
from service.store.database import open_database
from service.store.outage import Outage
from service.store.place import open_blobs, open_mirror
from service.store.wanted import Wanted


def rescore_command(
    recipe: Annotated[str, typer.Argument()],
    version: Annotated[int, typer.Argument(min=1, help="What is to look at them.")],
    out: Annotated[Path, typer.Argument(help="Folder for what it says; goes on where it was.")],
    images: Annotated[
        str | None,
        typer.Option(help="A folder, or s3://…, instead of what was inspected here."),
    ] = None,
    since: Annotated[datetime | None, typer.Option(help="Of inspections, from then on.")] = None,
    until: Annotated[datetime | None, typer.Option(help="And before.")] = None,
    engines: Annotated[int, typer.Option(min=1, help="How many side by side.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="For each of them.")] = 0,
    store: Store = None,
    data: Data = None,
    database: DatabaseUrl = None,
) -> None:
    """Tell what another version says of images that were inspected: which passed parts would it
    have refused?"""
    try:
        from service.rescoring.images import of_archive, of_folder
        from service.rescoring.plan import Plan, Terms
        from service.rescoring.rescore import rescore
    except ImportError as error:
        raise SettingsError(
            f"{error.name} is not installed here.", remedy="pip install 'kizu[ray]'."
        ) from error
    settings = read_settings(store=store, data=data, database=database)
    if mirror := open_mirror(settings):
        mirror.fetch()
    bundle = open_bundle(settings.store / recipe / str(version))
    Trust.of(settings.trusted_keys).check(bundle)
    times = {"since": since, "until": until}
    wanted = Wanted(
        recipe=recipe, **{name: time.astimezone() for name, time in times.items() if time}
    )
    settings.data.mkdir(parents=True, exist_ok=True)
    engine = open_database(settings.database_url)
    try:
        with Session(engine) as session:
            terms = Terms(
                recipe=recipe,
                version=version,
                digest=bundle.digest,
                thresholds=records.thresholds_in_force(session, bundle),
                settings=Recipes(engine, Outage(engine)).in_force(session, recipe).settings,
                source=images or wanted.model_dump_json(exclude_none=True),
            )
        found = of_folder(images) if images else of_archive(
            engine, open_blobs(settings), wanted
        )  # fmt: skip
        with Console(stderr=True).status("Looking what there is …"):
            plan = Plan.begin(out, terms, found)
    finally:
        engine.dispose()
    done = rescore(plan, bundle.path, settings, engines=engines, gpus=gpus)
    for _ in track(done, "Looking again", total=plan.size + 1, console=Console(stderr=True)):
        pass
    _show(plan.changes(), version)
    typer.echo(plan.write_refused())


def _show(changes: dict[tuple[str, str], int], version: int) -> None:
    table = Table("Verdict then", *(f"{new} by version {version}" for new in get_args(Verdict)))
    for old in sorted({old for old, _ in changes}):
        table.add_row(old, *(f"{changes[old, new]:,}" for new in get_args(Verdict)))
    Console().print(table)
