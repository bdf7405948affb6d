"""Requests made up from the API's own description, right and wrong: none makes the service fail,
none is carried out for somebody unknown, and every answer is one that the description tells of."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import schemathesis
from hypothesis import strategies
from schemathesis.config import (
    ChecksConfig,
    CoveragePhaseConfig,
    ExamplesPhaseConfig,
    FuzzingPhaseConfig,
    GenerationConfig,
    HealthCheck,
    NotAServerErrorConfig,
    PhasesConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
    StatefulPhaseConfig,
)
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import Interaction
from schemathesis.schemas import BaseSchema
from sqlalchemy.orm import Session

from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from service.store import accounts
from service.store.database import open_database
from tests.gates.gate import Findings
from tests.grey_parts import image, inspect, write_version
from tests.listening import listening
from tests.postgresql import postgresql

FORMATS = {
    "image/jpeg": "JPEG", "image/png": "PNG", "image/bmp": "BMP", "image/tiff": "TIFF",
    "image/webp": "WEBP",
}  # fmt: skip
# Of what is valid by its form, much names nothing that there is; times may be numbers, too; and
# where a mask is not drawn any more, the answer says so with a 204.
UNASKED = [
    "positive_data_acceptance", "negative_data_rejection", "missing_required_header",
    "use_after_free",
]  # fmt: skip
EXPECTED = ["2xx", "3xx", "4xx", "503", "504"]  # the last two as `_is_promised` says
TIMEOUT_S = 20.0
FEW, MANY = 2, 100  # of each operation


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """A few requests of each kind with SQLite; in the full form many, with PostgreSQL as well."""
    found = Findings(seed=11)
    for format, name in FORMATS.items():
        pictures = strategies.sampled_from([image(grey, name) for grey in (50, 120, 200)])
        schemathesis.openapi.media_type(format, pictures | strategies.binary())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_version(folder / "store")
        write_version(folder / "store", 2)
        _fuzz(found, folder, "", full, lambda share: progress(share / (1 + full)))
        if full:
            with postgresql(folder) as url:
                database = url.render_as_string(hide_password=False)
                _fuzz(found, folder, database, full, lambda share: progress(0.5 + share / 2))
    progress(1.0)
    return found


def _fuzz(
    found: Findings, folder: Path, database: str, full: bool, progress: Callable[[float], None]
) -> None:
    data = folder / ("postgresql" if database else "sqlite")
    data.mkdir()
    settings = Settings(
        store=folder / "store", data=data, database=database, access="closed", promotion="manual"
    )
    engine = open_database(settings.database_url)
    with Session(engine) as session, session.begin():
        key = accounts.add_key(session, "fuzz", "admin")
    engine.dispose()
    app = create_app(settings, open_engine=lambda bundle: FakeEngine())
    with listening(app) as (host, port):
        address = f"http://{host}:{port}"
        schema = _schema(address, key, found.seed, full=full)
        _know(schema, address, key)
        most = 63 * (MANY if full else FEW)
        asked = 0
        for event in from_schema(schema).execute():
            if isinstance(event, events.ScenarioFinished):
                asked += _look(found, event, database[:10] or "sqlite")
                progress(min(1.0, asked / most))
            elif isinstance(event, events.NonFatalError | events.FatalError):
                found.fail(f"it could not be asked: {event!r}")
        app.state.live.close()


def _schema(address: str, key: str, seed: int, *, full: bool) -> BaseSchema:
    checks = ChecksConfig(not_a_server_error=NotAServerErrorConfig(expected_statuses=EXPECTED))
    checks.update(excluded_check_names=UNASKED)
    project = ProjectConfig(
        headers={"Authorization": f"Bearer {key}"},
        checks=checks,
        phases=PhasesConfig(
            examples=ExamplesPhaseConfig(enabled=False),
            coverage=CoveragePhaseConfig(enabled=full),
            fuzzing=FuzzingPhaseConfig(),
            stateful=StatefulPhaseConfig(enabled=full, checks=checks),
        ),
        generation=GenerationConfig(
            max_examples=MANY if full else FEW, no_shrink=True, database="none"
        ),
        continue_on_failure=True,
        request_timeout=TIMEOUT_S,
    )
    config = SchemathesisConfig(
        seed=seed,
        projects=ProjectsConfig(default=project),
        suppress_health_check=[HealthCheck.all],
    )
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json", config=config)
    return schema.exclude(operation_id="follow_events")  # it never ends


def _know(schema: BaseSchema, address: str, key: str) -> None:
    """What is made up of names leads to something now and then."""
    with httpx.Client(base_url=address, headers={"authorization": f"Bearer {key}"}) as api:
        found = [inspect(api, grey, part_id="a part", camera="top") for grey in (50, 120, 200)]
        label = {"inspection_id": found[2]["id"], "verdict": "ng", "operator": "Aya"}
        api.post("/v1/feedback", json=label).raise_for_status()
        asked = {"by": "Aya", "reason": "to see"}
        training = api.post("/v1/recipes/cap/trainings", json=asked).raise_for_status().json()
    names = {
        "id": [*(one["id"] for one in found), training["id"]],
        "recipe": ["cap"],
        "part_id": ["a part"],
        "version": [1, 2],
    }

    @schema.hook
    def map_path_parameters(context: Any, path_parameters: Any) -> Any:
        for name, value in (path_parameters or {}).items():
            chosen = hashlib.sha256(repr(value).encode()).digest()[0]
            if name in names and chosen % 2:
                path_parameters[name] = names[name][chosen // 2 % len(names[name])]
        return path_parameters


def _look(found: Findings, event: events.ScenarioFinished, database: str) -> int:
    """How many requests there were."""
    asked = event.recorder.interactions.values()
    for one in asked:
        found.count("requests")
        found.count("refused" if one.response and one.response.status_code >= 400 else "done")
        if one.response and one.response.status_code >= 500 and not _is_promised(one):
            found.fail(
                f"{database}: {one.response.status_code} {one.response.text[:200]} to "
                f"{one.request.method} {one.request.uri} {one.request.body!r:.200}"
            )
    for checks in event.recorder.checks.values():
        for check in checks:
            found.count("checks")
            if check.failure_info:
                failure = check.failure_info.failure
                found.fail(
                    f"{database}, {event.label}: {check.name}: {failure.title}: "
                    f"{failure.message:.300} {check.failure_info.code_sample:.500}"
                )
    return len(asked)


def _is_promised(one: Interaction) -> bool:
    """Whether an error is one that a client is told to wait for, or has asked for itself."""
    assert one.response
    if one.response.status_code == 503:
        return "retry-after" in one.response.headers
    return one.response.status_code == 504 and "deadline_ms=" in one.request.uri
