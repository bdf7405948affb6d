"""The only place where the service is put together. Nothing opens at import."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from sqlalchemy import Engine as Database
from sqlalchemy.orm import Session

from models.bundle import Bundle
from models.signature import Trust
from service.access import AccessMiddleware
from service.admission import AdmissionMiddleware
from service.archive import Archive
from service.candidates import Candidates
from service.connection import Patience
from service.drift import Drift
from service.engine import Engine
from service.errors import install_handlers
from service.gate import Gate
from service.inspector import Inspector
from service.labels import Labels
from service.ledger import Ledger
from service.live import KEPT, Event, Live
from service.metrics import Metrics
from service.neighbours import Neighbours
from service.oidc import Provider
from service.onnx_engine import OnnxDevice
from service.pace import Pace
from service.recipes import Recipes
from service.registry import Registry
from service.retention import Policy, Retention
from service.routes import (
    audit,
    bundles,
    cameras,
    drift,
    exports,
    feedback,
    health,
    inspect,
    inspections,
    live,
    open_inference,
    parts,
    recipes,
    review,
    session,
    thresholds,
    trainings,
)
from service.routes.access import API, GateMiddleware, needs
from service.routes.problems import PROBLEMS
from service.scoring import image_batcher
from service.settings import Settings
from service.shadow import Shadow
from service.shifts import Shifts
from service.state import State
from service.store import records
from service.store.database import open_database
from service.store.outage import Outage
from service.store.owner import Owner
from service.store.place import open_blobs, open_mirror
from service.store.reserve import Reserve
from service.store.spool import Spool
from service.store.tables import Inspection
from service.trainings import Trainings
from service.vault import Vault
from service.watchdog import Watchdog
from service.web_files import WebFiles, WebMount

WEB = Path(__file__).parent / "web"


def create_app(
    settings: Settings,
    *,
    open_engine: Callable[[Bundle], Engine] | None = None,
    limits: tuple[int, int] | None = None,
    give_up: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application; it opens its database, store and device when it starts.

    `open_engine` puts another engine in the place of ONNX Runtime, and `limits` says how many runs
    of how many images it can do at once, by default one of eight. `give_up` ends the process
    when its device is lost.
    """
    app = FastAPIOffline(  # a plant has no CDN for the pages of /docs
        title="Kizu",
        summary="Visual inspection that learns from good parts.",
        version="1",
        lifespan=_lifespan(settings, partial(_open, settings, open_engine, limits, give_up)),
        telemetry={"tracing": False},
        responses=PROBLEMS,
        redirect_slashes=False,
    )
    app.state.live = Live()  # whoever serves it must end the watching before the connections
    install_handlers(app)
    app.add_middleware(AdmissionMiddleware, paths=("/inspect", "/v1/inspect"))
    app.add_middleware(GateMiddleware)
    app.add_middleware(
        AccessMiddleware, max_body_bytes=settings.max_body_bytes,
        max_bodies_bytes=settings.max_bodies_bytes, body_s=settings.body_seconds,
    )  # fmt: skip
    for module in (
        inspect, inspections, parts, feedback, review, live, exports, recipes, thresholds, bundles,
        trainings, cameras, drift, open_inference, session, audit, health,
    ):  # fmt: skip
        app.include_router(module.router)
    # The short forms that cameras and operators' tools use.
    for path, endpoint, body, role in (
        ("/inspect", inspect.inspect, inspect.INSPECT_BODY, needs("camera")),
        ("/feedback", feedback.give_feedback, None, needs("operator")),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            dependencies=[role],
            operation_id=f"{endpoint.__name__}_short",
            status_code=201 if path == "/feedback" else 200,
            openapi_extra=body,
            responses=PROBLEMS,
            tags=["short forms"],
        )
    app.router.routes.append(WebMount(WebFiles(directory=WEB, html=True), API))
    return app


def _lifespan(
    settings: Settings, opened: Callable[[Live], State]
) -> Callable[[FastAPI], AbstractAsyncContextManager[dict[str, State | Patience]]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, State | Patience]]:
        try:
            state = await to_thread.run_sync(opened, app.state.live)
        except Exception as error:
            app.state.startup_error = error  # for whoever started the server to show
            raise
        end = asyncio.Event()
        listening = asyncio.create_task(state.neighbours.listen(end))
        patience = Patience(settings.head_seconds, settings.body_seconds, settings.answer_seconds)
        try:
            yield {"kizu": state, "patience": patience}
        finally:
            end.set()
            await asyncio.wait([listening])
            await state.shadow.close()
            await to_thread.run_sync(_close, state)

    return lifespan


def _open(
    settings: Settings,
    open_engine: Callable[[Bundle], Engine] | None,
    limits: tuple[int, int] | None,
    give_up: Callable[[], None],
    live: Live,
) -> State:
    settings.data.mkdir(parents=True, exist_ok=True)
    owner = Owner(settings.data)
    try:
        reserve = Reserve(settings.data / "reserve")
        with reserve.lent():
            return _put_together(settings, open_engine, limits, give_up, live, owner, reserve)
    except BaseException:
        owner.close()
        raise


def _put_together(
    settings: Settings,
    open_engine: Callable[[Bundle], Engine] | None,
    limits: tuple[int, int] | None,
    give_up: Callable[[], None],
    live: Live,
    owner: Owner,
    reserve: Reserve,
) -> State:
    provider = Provider.of(settings)
    blobs, mirror = open_blobs(settings), open_mirror(settings)
    database = open_database(settings.database_url)
    metrics = Metrics()
    device = OnnxDevice(settings, under_way=lambda: pace.under_way)
    # Of another engine nothing is known: it runs one batch at a time.
    unknown = (1, settings.max_batch or 8) if open_engine else device.limits
    lanes, max_batch = limits or unknown
    pace = Pace(lanes * max_batch)
    registry = Registry(
        settings.store, database, open_engine or device.open,
        Vault(settings.data / "bundles", Trust.of(settings.trusted_keys)),
        promotion=settings.promotion,
        model_bytes=settings.model_mb * 1_000_000 or None,
    )  # fmt: skip
    candidates = Candidates(registry, database, promotion=settings.promotion)
    metrics.models.set_function(lambda: registry.loaded_bytes + candidates.loaded_bytes)
    if mirror:
        mirror.start(sends=False)
    registry.start(settings.scan_seconds, candidates.scan)
    batcher = image_batcher(settings, metrics, lanes=lanes, max_batch=max_batch)
    watchdog = Watchdog(
        lambda: registry.loaded, batcher, every_s=settings.canary_seconds,
        hang_s=settings.hang_seconds, precision=settings.precision, give_up=give_up,
    )  # fmt: skip
    watchdog.start()
    newest = _newest(database)
    live.begin(Event(row.id, row.recipe, row) for row in newest)
    drift = Drift()
    drift.begin(newest)
    outage = Outage(database)
    recipes = Recipes(database, outage)
    spool = Spool(settings.data / "spool.sqlite3") if outage.can_be else None
    ledger = Ledger(database, recipes, outage, spool)
    metrics.spooled.set_function(lambda: ledger.waiting)
    metrics.spooled_files.set_function(lambda: blobs.waiting)
    blobs.start()
    ledger.start()
    archive = Archive(blobs, ledger, metrics, reserve, disk_full=settings.disk_full)
    retention = Retention(
        database, blobs, settings.data, reserve,
        Policy(
            settings.keep_ok_days, settings.keep_days, settings.quota_gb, settings.free_gb
        ),
        ledger, metrics,
    )  # fmt: skip
    retention.start()
    shadow = Shadow(candidates, batcher, database, recipes, metrics, settings)
    inspector = Inspector(
        registry, archive, batcher, watchdog, pace, metrics, live, shadow, recipes, drift,
        settings,
    )  # fmt: skip
    return State(
        settings=settings,
        owner=owner,
        database=database,
        blobs=blobs,
        registry=registry,
        mirror=mirror,
        candidates=candidates,
        recipes=recipes,
        batcher=batcher,
        watchdog=watchdog,
        inspector=inspector,
        shadow=shadow,
        labels=Labels(database, blobs, settings),
        trainings=Trainings(registry, database),
        metrics=metrics,
        live=live,
        drift=drift,
        neighbours=Neighbours(database, live, drift, newest[-1] if newest else None),
        shifts=Shifts(settings.shifts),
        ledger=ledger,
        archive=archive,
        retention=retention,
        provider=provider,
        gate=Gate(
            database,
            access=settings.access,
            host=settings.host,
            session_hours=settings.session_hours,
            public_url=settings.public_url,
        ),
    )


def _newest(database: Database) -> list[Inspection]:
    """So that who watched before a restart goes on where that was; the oldest first."""
    with Session(database) as session:
        rows = records.entered_last(session, KEPT)
        session.expunge_all()
    return rows


def _close(state: State) -> None:
    state.retention.close()
    state.blobs.close()
    state.ledger.close()
    state.gate.close()
    state.watchdog.close()
    state.batcher.close()  # answers what is in flight
    state.registry.close()
    if state.mirror:
        state.mirror.close()
    state.database.dispose()
    state.owner.close()
