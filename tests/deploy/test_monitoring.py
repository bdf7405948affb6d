"""What Prometheus is told to watch, and what Grafana shows: of metrics that there are."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from service.app import create_app
from service.client import Kizu
from service.connectors.feeder import Feeder
from service.connectors.metrics import ConnectMetrics
from service.connectors.outbox import Outbox
from service.connectors.settings import MetricsSettings
from service.engine import FakeEngine
from service.settings import Settings
from tests.grey_parts import inspect, write_version
from tests.listening import listening

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIGURATION = DEPLOY / "prometheus" / "prometheus.yml"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "kizu.json"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
WAIT_S = 60.0

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")),
    reason="needs prometheus: apt-get install",
)


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def queries() -> list[str]:
    """Of every panel, for all recipes."""
    panels = dashboard()["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [query.replace("$recipe", ".*") for query in found]


def promtool(*command: str | Path) -> None:
    done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def service(tmp_path: Path) -> Iterator[httpx.Client]:
    """One that has inspected, and told of a part without a verdict."""
    write_version(tmp_path / "store")
    settings = Settings(store=tmp_path / "store", data=tmp_path / "data")
    app = create_app(settings, open_engine=lambda bundle: FakeEngine())
    with (
        listening(app) as (host, port),
        httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client,
    ):
        for grey in (50, 60, 120, 200):
            id = inspect(client, grey, camera="top")["id"]
        label = {"inspection_id": id, "verdict": "ng", "operator": "Aya"}
        client.post("/v1/feedback", json=label).raise_for_status()
        client.post("/v1/inspect", content=b"no image", headers={"content-type": "image/png"})
        yield client
        app.state.live.close()


@contextmanager
def watching(target: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """Prometheus with the configuration that is deployed, in more of a hurry."""
    written = CONFIGURATION.read_text().replace("kizu:8000", target)
    for deployed in ("scrape_interval: 15s", "scrape_timeout: 10s", "evaluation_interval: 15s"):
        assert deployed in written
        written = written.replace(deployed, deployed.split(":")[0] + ": 1s")
    (tmp_path / "prometheus.yml").write_text(written)
    shutil.copy(ALERTS, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with subprocess.Popen(
        ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}",
         f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address={address}",
         "--log.level=error"],
    ) as process:  # fmt: skip
        try:
            with httpx.Client(base_url=f"http://{address}/api/v1", timeout=30) as prometheus:
                yield prometheus
        finally:
            process.terminate()


def ask(prometheus: httpx.Client, query: str) -> list[dict[str, Any]]:
    answer = prometheus.get("/query", params={"query": query}).json()
    assert answer["status"] == "success", (query, answer)
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def await_samples(prometheus: httpx.Client, least: int) -> None:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        time.sleep(0.1)  # it tells nobody that it is there, nor when it has scraped
        try:
            answer = prometheus.get("/query", params={"query": "count_over_time(up[1m])"})
        except httpx.TransportError:
            continue
        found = answer.json()["data"]["result"] if answer.is_success else []
        if found and float(found[0]["value"][1]) >= least:
            return
    pytest.fail("Prometheus scraped nothing")


@needs_prometheus
def test_the_configuration_and_the_alerts_are_valid() -> None:
    promtool("check", "config", CONFIGURATION)
    promtool("test", "rules", DEPLOY / "prometheus" / "alerts_test.yml")


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    tested = (DEPLOY / "prometheus" / "alerts_test.yml").read_text()
    for rule in rules():
        assert rule["alert"] in tested
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_only_metrics_that_there_are_are_asked_for(service: httpx.Client, tmp_path: Path) -> None:
    said = service.get("/metrics").text
    outbox = Outbox(tmp_path / "outbox")
    registry = CollectorRegistry()
    registry.register(ConnectMetrics(outbox, Feeder(Kizu("http://kizu"), outbox, [])))
    said += generate_latest(registry).decode()
    there = set(re.findall(r"^# TYPE (\w+) ", said, re.MULTILINE))
    there |= {f"{name}_{part}" for name in there for part in ("bucket", "count", "sum")}
    asked = [*queries(), *(rule["expr"] for rule in rules())]
    named = {name for query in asked for name in re.findall(r"\b(?:kizu|process)_\w+", query)}
    assert len(named) > 15
    assert named - there == set()


@needs_prometheus
def test_every_panel_shows_what_a_service_did(service: httpx.Client, tmp_path: Path) -> None:
    target = f"{service.base_url.host}:{service.base_url.port}"
    with watching(target, tmp_path) as prometheus:
        await_samples(prometheus, 3)
        empty = {query for query in queries() if not ask(prometheus, query)}
        assert float(ask(prometheus, "max(up)")[0]["value"][1]) == 1
        [version] = ask(prometheus, "kizu_bundle_version")
        assert (version["metric"]["recipe"], version["value"][1]) == ("cap", "1")
        alerts = prometheus.get("/rules").raise_for_status().json()["data"]["groups"][0]["rules"]
    # A service without a candidate, of few images, of which nothing is passed on, tells nothing of
    # these.
    assert {re.findall(r"kizu_\w+", query)[0] for query in empty} <= {
        "kizu_shadow_images_total", "kizu_drift_outside_ratio", "kizu_removed_total",
        "kizu_connect_waiting_results", "kizu_connect_received_total",
        "kizu_connect_waiting_images",
    }  # fmt: skip
    assert {alert["health"] for alert in alerts} == {"ok"}
    assert len(alerts) == len(rules())


def test_panels_ask_the_source_that_is_provided_and_do_not_overlap() -> None:
    (source,) = yaml.safe_load((DEPLOY / "grafana/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": source["type"], "uid": source["uid"]}
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_what_is_provided_is_mounted_where_it_is_looked_for() -> None:
    grafana = COMPOSE["services"]["grafana"]
    mounts = {there: here for here, there, _ in (m.split(":") for m in grafana["volumes"][:3])}
    provisioning = grafana["environment"]["GF_PATHS_PROVISIONING"]
    assert mounts[f"{provisioning}/datasources"] == "./grafana/datasources"
    (provider,) = yaml.safe_load((DEPLOY / "grafana/providers/kizu.yml").read_text())["providers"]
    assert mounts[provider["options"]["path"]] == "./grafana/dashboards"
    assert mounts[f"{provisioning}/dashboards"] == "./grafana/providers"
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (DEPLOY / mounts[str(home.parent)] / home.name).is_file()
    prometheus = COMPOSE["services"]["prometheus"]
    assert "./prometheus:/etc/prometheus:ro" in prometheus["volumes"]
    job, connect = yaml.safe_load(CONFIGURATION.read_text())["scrape_configs"]
    (static,) = job["static_configs"]
    aliases = COMPOSE["services"]["service"]["networks"]["inside"]["aliases"]
    assert static["targets"] == [f"{aliases[0]}:{Settings().port}"]
    assert job["metrics_path"] == "/metrics"
    assert connect["static_configs"][0]["targets"] == [f"connect:{MetricsSettings().port}"]
