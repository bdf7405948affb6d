"""What lives from the application's start to its end, in one typed place."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine as Database

from service.archive import Archive
from service.candidates import Candidates
from service.drift import Drift
from service.gate import Gate
from service.inspector import Inspector
from service.labels import Labels
from service.ledger import Ledger
from service.live import Live
from service.metrics import Metrics
from service.neighbours import Neighbours
from service.oidc import Provider
from service.recipes import Recipes
from service.registry import Registry
from service.retention import Retention
from service.scoring import ImageBatcher
from service.settings import Settings
from service.shadow import Shadow
from service.shifts import Shifts
from service.store.blobs import Blobs
from service.store.mirror import Mirror
from service.store.owner import Owner
from service.trainings import Trainings
from service.watchdog import Watchdog


@dataclass(frozen=True)
class State:
    """The parts of a running service."""

    settings: Settings
    owner: Owner
    database: Database
    blobs: Blobs
    registry: Registry
    mirror: Mirror | None
    candidates: Candidates
    batcher: ImageBatcher
    watchdog: Watchdog
    inspector: Inspector
    shadow: Shadow
    labels: Labels
    trainings: Trainings
    metrics: Metrics
    live: Live
    shifts: Shifts
    recipes: Recipes
    drift: Drift
    neighbours: Neighbours
    gate: Gate
    provider: Provider | None
    ledger: Ledger
    archive: Archive
    retention: Retention


async def _state(request: Request) -> State:  # a plain function would be called in a thread
    state: State = request.state.kizu
    return state


CurrentState = Annotated[State, Depends(_state)]
