"""`kizu`: serve, worker, bundle, user, key, snapshot, import, backup, restore, rescore."""

import ctypes
import gc
import os
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from sqlalchemy.orm import Session

from models.bundle import list_recipes, list_versions, open_bundle
from models.command import VersionOption, run
from models.errors import BundleError
from models.signature import Trust
from service.accounts_cli import key_app, user_app
from service.app import create_app
from service.backup import back_up, restore
from service.cli_settings import Data, DatabaseUrl, Store, at_the_terminal, read_settings
from service.client import Kizu
from service.connection import Connection
from service.doctor import examine
from service.imports import ImportFormat, read_labelled, send
from service.logs import configure_logging
from service.onnx_engine import OnnxDevice
from service.registry import Registry
from service.rescoring.command import rescore_command
from service.settings import Settings, SettingsError
from service.stop_signal import stop_on_signals
from service.store.audit import acts, verify
from service.store.database import open_database
from service.store.place import open_blobs, open_mirror
from service.store.snapshot import take_snapshot
from service.store.wanted import Wanted
from service.support import gather
from service.vault import Vault
from service.worker import TrainingWorker, find_program

log = structlog.get_logger()

DEVICE_LOST = 70  # exit status, EX_SOFTWARE
_COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red"}
_LEFT_TO_END_S = 4.0
_M_ARENA_MAX = -8  # malloc.h

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Serve Kizu's bundles and keep what operators say.",
)  # fmt: skip
audit_app = typer.Typer(no_args_is_help=True, help="Who changed what that decides.")
bundle_app = typer.Typer(no_args_is_help=True, help="Verify, list and promote bundles.")
app.add_typer(bundle_app, name="bundle")
app.add_typer(user_app, name="user")
app.add_typer(key_app, name="key")
app.add_typer(audit_app, name="audit")


@app.callback()
def _whole(*, version: VersionOption = False) -> None:
    """Options before any command."""


class _Server(uvicorn.Server):
    """Says when it listens: only then does a request reach it. Raises why it could not start."""

    def __init__(self, service: FastAPI, listener: socket.socket, settings: Settings) -> None:
        # Access lines, and why it cannot start, are said by Kizu itself.
        super().__init__(
            uvicorn.Config(
                service, access_log=False, log_level="critical", timeout_graceful_shutdown=30,
                ssl_certfile=settings.tls_certificate, ssl_keyfile=settings.tls_key,
                http=Connection, ws="none", forwarded_allow_ips=settings.proxies,
            )
        )  # fmt: skip
        self._service = service
        self._listener = listener
        self._scheme = "https" if settings.tls_certificate else "http"
        self._public = {"public_url": settings.public_url} if settings.public_url else {}
        _load_certificate(self.config, settings)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets=[self._listener])
        except SystemExit as error:
            raise self._service.state.startup_error from error
        # What is here by now stays: to look through it for garbage, again and again, would halt
        # the service for a tenth of a second each time.
        gc.collect()
        gc.freeze()
        host, port = self._listener.getsockname()[:2]
        log.info("listening", url=f"{self._scheme}://{host}:{port}/", **self._public)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.state.live.close()  # or each watcher would be waited for
        await super().shutdown(sockets)


def _load_certificate(config: uvicorn.Config, settings: Settings) -> None:
    """Before anything else is: what is wrong with it is known at once. Raises SettingsError."""
    if settings.tls_key and not settings.tls_certificate:
        raise SettingsError("There is a key and no certificate.", remedy="Set both, or none.")
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"{settings.tls_certificate} and {settings.tls_key} are no certificate and its key: "
            f"{error}.",
            remedy="Set KIZU_TLS_CERTIFICATE and KIZU_TLS_KEY to PEM files that can be read.",
        ) from error


@app.command()
def serve(
    store: Store = None,
    data: Data = None,
    database: DatabaseUrl = None,
    host: Annotated[str | None, typer.Option(help="Address (KIZU_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port (KIZU_PORT).")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="What runs the model (KIZU_DEVICE)."),
    ] = None,
) -> None:
    """Serve the bundles of a store; every other setting is a KIZU_… variable."""
    configure_logging()
    _share_memory()
    settings = read_settings(
        store=store, data=data, database=database, host=host, port=port, device=device
    )
    # One process owns the device, and ends with it, so that whoever watches it starts another.
    lost = threading.Event()
    server = _Server(create_app(settings, give_up=lost.set), _bind(settings), settings)
    ending = threading.Thread(target=_end_when, args=(lost, server), daemon=True)
    ending.start()
    server.run()
    if lost.is_set():
        raise typer.Exit(DEVICE_LOST)


def _share_memory() -> None:
    """Let threads take memory from two pools, not from one each: what decoding frees in one is of
    no use to the others, and a service of many threads grew by a fifth. jemalloc does not ask."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's
        libc.mallopt(_M_ARENA_MAX, 2)


def _end_when(lost: threading.Event, server: _Server) -> None:
    lost.wait()
    server.should_exit = True
    # A run that hangs would keep the process from ending in order.
    time.sleep(_LEFT_TO_END_S)
    os._exit(DEVICE_LOST)


@app.command("worker")
def worker_command(store: Store = None, data: Data = None, database: DatabaseUrl = None) -> None:
    """Carry out the retrainings that people ask for in the console, one at a time."""
    configure_logging()
    settings = read_settings(store=store, data=data, database=database)
    program = find_program()
    stop = stop_on_signals()
    blobs = open_blobs(settings)
    blobs.start()
    mirror = open_mirror(settings)
    if mirror:
        mirror.start(sends=True)
    database_engine = open_database(settings.database_url)
    worker = TrainingWorker(database_engine, blobs, settings, program, mirror)
    log.info("waiting for trainings", store=str(settings.store))
    try:
        worker.run(stop)
    finally:
        blobs.close()
        if mirror:
            mirror.close()


@app.command("connect")
def connect_command(
    file: Annotated[Path, typer.Argument(help="What to pass on to whom, in TOML.")],
    forgotten: Annotated[
        str | None,
        typer.Option(
            "--forget",
            metavar="NAME",
            help="Throw away what waits for one that the file no longer names, and end.",
        ),
    ] = None,
) -> None:
    """Pass results on to brokers, webhooks and OPC UA clients, as a file says; what they miss, they
    get later."""
    try:
        from service.connectors.connect import connect, forget
        from service.connectors.settings import read_connect_settings
    except ImportError as error:
        raise SettingsError(
            f"{error.name} is not installed here.", remedy="pip install 'kizu[connect]'."
        ) from error
    settings = read_connect_settings(file)
    if forgotten:
        typer.echo(f"{forget(settings, forgotten)} results for {forgotten} are thrown away.")
        return
    configure_logging()
    connect(settings, stop_on_signals())


@app.command("doctor")
def doctor_command(
    store: Store = None,
    data: Data = None,
    database: DatabaseUrl = None,
    device: Annotated[str | None, typer.Option(help="What runs the model (KIZU_DEVICE).")] = None,
) -> None:
    """Look whether this computer can do what is asked of it, and say what to do where it cannot."""
    settings = read_settings(store=store, data=data, database=database, device=device)
    table = Table("", "", show_header=False, box=None)
    wrong = False
    for one in examine(settings):
        wrong |= one.health == "wrong"
        table.add_row(f"[{_COLOURS[one.health]}]{one.health}", one.subject, escape(one.text))
    Console().print(table)
    if wrong:
        raise typer.Exit(1)


@app.command("support")
def support_command(
    out: Annotated[Path, typer.Argument(help="File to write, such as support.zip.")],
    store: Store = None,
    data: Data = None,
    database: DatabaseUrl = None,
) -> None:
    """Put what somebody who is to help must know into one file: no image, no part, no secret."""
    settings = read_settings(store=store, data=data, database=database)
    with Console(stderr=True).status("Looking …"):
        gather(settings, list(examine(settings)), out)
    typer.echo(out)


@bundle_app.command("verify")
def verify_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle <store>/<recipe>/<version>.")],
    device: Annotated[
        str | None,
        typer.Option(help="What runs the model (KIZU_DEVICE)."),
    ] = None,
) -> None:
    """Check all hashes and who signed it, and replay the golden vectors on this device."""
    settings = read_settings(device=device)
    opened = open_bundle(bundle)
    Trust.of(settings.trusted_keys).check(opened)
    engine = OnnxDevice(settings).open(opened)
    typer.echo(f"ok: {opened.digest} agrees with its training on {engine.device}")


@bundle_app.command("list")
def list_command(store: Store = None) -> None:
    """List the bundles of a store."""
    settings = read_settings(store=store)
    table = Table("Recipe", "Version", "Made", "From", "Image AUROC", "Hashes")
    for recipe in list_recipes(settings.store):
        for version in list_versions(settings.store, recipe):
            table.add_row(recipe, str(version), *_describe(settings.store / recipe / str(version)))
    Console().print(table)


@bundle_app.command("send")
def send_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle <store>/<recipe>/<version>.")],
) -> None:
    """Send a bundle to the object store from which all services bring it (KIZU_BUNDLES)."""
    settings = read_settings()
    mirror = open_mirror(settings)
    if mirror is None:
        raise SettingsError("No object store is named.", remedy="Set KIZU_BUNDLES to its address.")
    opened = open_bundle(bundle)
    sent = mirror.send(opened)
    place = f"{settings.bundles.rstrip('/')}/{opened.manifest.recipe}/{opened.manifest.version}"
    typer.echo(place if sent else f"{place} was there already")


@bundle_app.command("promote")
def promote_command(
    recipe: Annotated[str, typer.Argument()],
    version: Annotated[int, typer.Argument(min=1)],
    by: Annotated[str, typer.Option(help="Who decides.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    store: Store = None,
    data: Data = None,
    database: DatabaseUrl = None,
) -> None:
    """Let a version decide from now on; a running service takes it up within seconds."""
    settings = read_settings(store=store, data=data, database=database)
    if mirror := open_mirror(settings):
        mirror.fetch()
    registry = Registry(
        settings.store,
        open_database(settings.database_url),
        OnnxDevice(settings).open,
        Vault(settings.data / "bundles", Trust.of(settings.trusted_keys)),
        promotion=settings.promotion,
    )
    with acts(at_the_terminal()):
        registry.promote(recipe, version, by=by, reason=reason)
    typer.echo(f"{recipe}: version {version} decides")


@audit_app.command("verify")
def verify_audit_command(
    head: Annotated[
        str | None,
        typer.Option(help="What this said before, NUMBER:DIGEST: that the log was not cut off."),
    ] = None,
    data: Data = None,
    database: DatabaseUrl = None,
) -> None:
    """Check that no entry of the audit log was changed or taken out; says its head to be noted."""
    settings = read_settings(data=data, database=database)
    engine = open_database(settings.database_url)
    try:
        with Session(engine) as session:
            number, digest = verify(session, head)
    finally:
        engine.dispose()
    typer.echo(f"{number}:{digest}")


@app.command("snapshot")
def snapshot_command(
    out: Annotated[Path, typer.Option(help="Directory for snapshots.")] = Path("snapshots"),
    recipe: Annotated[str | None, typer.Option(help="Only this recipe's labels.")] = None,
    data: Data = None,
    database: DatabaseUrl = None,
) -> None:
    """Write the operators' labels as an immutable snapshot for `kizu-train retrain`."""
    settings = read_settings(data=data, database=database)
    engine = open_database(settings.database_url)
    taken = take_snapshot(engine, open_blobs(settings), out, Wanted(recipe=recipe))
    snapshot = taken.snapshot
    defective = sum(sample.verdict == "ng" for sample in snapshot.samples)
    typer.echo(
        f"{len(snapshot.samples)} labels: {defective} ng, "
        f"{sum(sample.mask_sha256 is not None for sample in snapshot.samples)} of them with masks",
        err=True,
    )
    if taken.note:
        typer.echo(taken.note, err=True)
    typer.echo(snapshot.path)


@app.command("import")
def import_command(
    folder: Annotated[Path, typer.Argument(help="Folder of labelled images.")],
    recipe: Annotated[str, typer.Option(help="Recipe by which they are inspected.")],
    operator: Annotated[str, typer.Option(help="In whose name they are labelled.")],
    format: Annotated[ImportFormat, typer.Option(help="How the folder is laid out.")] = "mvtec",
    url: Annotated[str, typer.Option(help="The service.")] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None, typer.Option(envvar="KIZU_KEY", help="An operator's key, where one is needed.")
    ] = None,
) -> None:
    """Have labelled images inspected and labelled by a running service; goes on where it was."""
    found = read_labelled(folder, format)
    with Kizu(url, key=key, patience_s=60) as kizu:
        for one in track(found, "Importing", console=Console(stderr=True)):
            send(kizu, one, recipe, operator)
    typer.echo(f"{len(found)} inspections labelled")


@app.command("backup")
def backup_command(
    recipe: Annotated[str, typer.Argument()],
    out: Annotated[Path, typer.Argument(help="File to write, such as cap.kizu.")],
    store: Store = None,
    data: Data = None,
    database: DatabaseUrl = None,
) -> None:
    """Write all there is of a recipe to one file: bundles, images, results, labels, settings."""
    settings = read_settings(store=store, data=data, database=database)
    engine = open_database(settings.database_url)
    with Console(stderr=True).status(f"Backing up {recipe} …") as status:
        missing = back_up(engine, open_blobs(settings), settings.store, recipe, out, status.update)
    if missing:
        typer.echo(f"{missing} images and heatmaps are no longer kept, and not in it", err=True)
    typer.echo(out)


@app.command("restore")
def restore_command(
    file: Annotated[Path, typer.Argument(help="File that `kizu backup` wrote.")],
    store: Store = None,
    data: Data = None,
    database: DatabaseUrl = None,
) -> None:
    """Add a backup's recipe to what is here; nothing that is here is changed."""
    settings = read_settings(store=store, data=data, database=database)
    settings.data.mkdir(parents=True, exist_ok=True)
    engine = open_database(settings.database_url)
    status = Console(stderr=True).status(f"Restoring {file} …")
    with acts(at_the_terminal()), status:
        recipe = restore(engine, open_blobs(settings), settings.store, file, status.update)
    if mirror := open_mirror(settings):
        mirror.send_all(recipe)
    typer.echo(recipe)


app.command("rescore")(rescore_command)


def _describe(path: Path) -> tuple[str, str, str, str]:
    try:
        manifest = open_bundle(path).manifest
    except BundleError as error:
        return "", "", "", f"refused: {error.message}"
    auroc = manifest.metrics.get("image_auroc")
    made = manifest.created_at.strftime("%Y-%m-%d %H:%M")
    origin = f"version {manifest.parent_version}" if manifest.parent_version else manifest.origin
    return made, origin, f"{100 * auroc:.1f}" if auroc is not None else "–", "ok"


def _bind(settings: Settings) -> socket.socket:
    """Listen before anything is loaded, so that a taken port is known at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(
            f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}.",
            remedy="Choose another --port or --host.",
        ) from error


def main() -> None:
    """Run the command line."""
    run(app)
