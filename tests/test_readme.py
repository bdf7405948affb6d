"""The guides' promises: their code runs, and everything that can be set or asked is in them."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.app import create_app
from service.cli import app as service_app
from service.metrics import Metrics
from service.settings import Settings
from training.cli.main import app as training_app
from training.data.drawn_defects import DRAWINGS
from training.methods.registry import METHODS

ROOT = Path(__file__).parent.parent
ENGINEER, INTEGRATOR, ADMINISTRATOR = (
    (ROOT / name).read_text("utf-8")
    for name in ("training/ENGINEER.md", "service/INTEGRATOR.md", "deploy/ADMINISTRATOR.md")
)


def executed_blocks():
    return re.findall(r"<!-- tested -->\n```bash\n(.*?)```", ENGINEER, re.S)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_steps_of_the_engineer_run(tmp_path, postgresql_url):
    """Word for word, but for the size of the demo, the number of steps and the port. With
    PostgreSQL: a newcomer's are run with SQLite."""
    blocks = executed_blocks()
    assert len(blocks) == 3
    port = free_port()
    # The service would keep the pipe open after a command that failed.
    script = "trap 'kill $(jobs -p) 2>/dev/null' ERR\n" + "\n".join(blocks)
    script = script.replace(
        "demo-data demo", "demo-data demo --good 30 --test-good 6 --per-defect 3 --size 128"
    )
    script = script.replace("fit demo --recipe cap", "fit demo --recipe cap --size 128")
    script = script.replace("retrain ", "retrain --steps 3 ").replace("8000", str(port))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KIZU_DATABASE": postgresql_url,
    }
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "cap: version 1 decides" in line:  # the last command; the service runs on
                break
        assert "cap: version 1 decides" in lines[-1], "".join(lines[-20:])
        assert (tmp_path / "overlay.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
        assert "Traceback" not in "".join(lines)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name):
    assert f"`KIZU_{name.upper()}`" in ADMINISTRATOR


def test_every_route_is_documented(tmp_path):
    paths = create_app(Settings(data=tmp_path)).openapi()["paths"]
    missing = [
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method in methods
        if f"`{method.upper()} {path}`" not in INTEGRATOR
    ]
    assert missing == []


def test_every_metric_is_documented():
    names = {
        metric.name for metric in Metrics().registry.collect() if metric.name.startswith("kizu")
    }
    assert len(names) == 18
    assert [name for name in names if f"`{name}" not in ADMINISTRATOR] == []


@pytest.mark.parametrize("name", [*METHODS, *DRAWINGS])
def test_every_method_and_anomaly_is_documented(name):
    assert re.search(rf"`[^`]*\b{name}\b[^`]*`", ENGINEER)


def commands(app, program):
    """All that can be written after a program's name, groups and all."""
    for one in app.registered_commands:
        yield f"{program} {one.name or one.callback.__name__}"
    for group in app.registered_groups:
        yield from commands(group.typer_instance, f"{program} {group.name}")


def test_every_command_is_documented():
    for guide, found in (
        (ENGINEER, list(commands(training_app, "kizu-train"))),
        (ADMINISTRATOR, list(commands(service_app, "kizu"))),
    ):
        assert len(found) > 10
        assert [command for command in found if f"`{command}`" not in guide] == []
