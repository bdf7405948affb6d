"""The Dockerfiles: linted, non-root, true to the settings; their contexts leak nothing."""

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
NAMES = ("service", "training")  # those of the project's own programs
ALL = (*NAMES, "proxy")
Instruction = tuple[str, str]


def read(name: str) -> list[Instruction]:
    """The instructions of a Dockerfile, without comments, continuation lines joined."""
    text = (ROOT / "docker" / f"{name}.Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def values(name: str, instruction: str) -> list[str]:
    return [rest for word, rest in read(name) if word == instruction]


def environment(name: str) -> dict[str, str]:
    (env,) = values(name, "ENV")
    return dict(re.findall(r'(\w+)="?([^"\s]+)"?', env))


@pytest.mark.parametrize("name", ALL)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    file = ROOT / "docker" / f"{name}.Dockerfile"
    done = subprocess.run([hadolint, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ALL)
def test_no_heredocs(name: str) -> None:
    assert [rest for _, rest in read(name) if "<<" in rest] == []  # buildah 1.28 lacks them


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_user_that_it_runs_as(name: str) -> None:
    (user,) = (rest for rest in values(name, "RUN") if "useradd" in rest)
    assert "groupadd --gid 10001 " in user
    assert "useradd --uid 10001 " in user


@pytest.mark.parametrize("name", ALL)
def test_it_runs_as_one_fixed_user_in_every_image(name: str) -> None:
    assert values(name, "USER") == ["10001:10001"]


@pytest.mark.parametrize("name", NAMES)
def test_volumes_are_made_for_the_user_first(name: str) -> None:
    (volumes,) = values(name, "VOLUME")
    (user,) = (rest for rest in values(name, "RUN") if "useradd" in rest)
    owned = user.partition("install --directory --owner=kizu --group=kizu ")[2].split()
    assert set(json.loads(volumes)) <= set(owned)


@pytest.mark.parametrize("name", ALL)
def test_the_context_holds_what_is_copied_and_nothing_else(name: str) -> None:
    ignore = (ROOT / "docker" / f"{name}.Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line for line in ignore if not line.startswith("#")]
    copies = [rest for rest in values(name, "COPY") if not rest.startswith("--from")]
    sources = [source for rest in copies for source in rest.split()[:-1]]
    assert patterns[0] == "*"
    assert [line[1:] for line in patterns if line.startswith("!")] == sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert ("models/bundles" in patterns) == ("models" in sources)


def test_the_wheel_has_all_that_it_is_built_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    for name in NAMES:
        assert needed <= {source for rest in values(name, "COPY") for source in rest.split()}


def test_the_service_image_sets_settings_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {key: value for key, value in environment("service").items() if key[:5] == "KIZU_"}
    assert {key[5:].lower() for key in given} - set(Settings.model_fields) == set()
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    settings = Settings()
    assert settings.host == "0.0.0.0"
    assert values("service", "EXPOSE") == [str(settings.port)]
    (volumes,) = values("service", "VOLUME")
    assert {str(settings.data), str(settings.store)} == set(json.loads(volumes))
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    for service in ("service", "service-gpu"):
        mounts = compose["services"][service]["volumes"]
        assert {mount.rpartition(":")[2] for mount in mounts} == set(json.loads(volumes))


def test_the_training_image_sets_variables_that_its_command_reads() -> None:
    commands = "".join(path.read_text() for path in (ROOT / "training" / "cli").glob("*.py"))
    known = re.findall(r'envvar="(\w+)"', commands)
    given = {key: value for key, value in environment("training").items() if key[:5] == "KIZU_"}
    assert set(given) - set(known) == set()
    (volumes,) = values("training", "VOLUME")
    used = {f"/{value.split('/')[1]}" for value in given.values()}
    assert used | {"/data"} == set(json.loads(volumes))  # the worker's


def test_images_start_the_commands_of_the_project() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    commands = [
        json.loads(values("service", "CMD")[-1])[0],
        json.loads(values("training", "ENTRYPOINT")[-1])[0],
    ]
    assert commands == list(scripts)


def test_extras_and_pins_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = {pin for rest in values("training", "RUN") for pin in re.findall(r"\S+==\S+", rest)}
    assert pins == {pin for pin in extras["train"] + extras["timm"] if "==" in pin}
    (installed,) = re.findall(r"\.whl\)\[([a-z,]+)\$\{EXTRAS", " ".join(values("training", "RUN")))
    assert set(installed.split(",")) == {"cpu", "train", "timm"} <= set(extras)
    assert "RUNTIME=cpu" in values("service", "ARG")


def test_the_proxy_s_volume_is_where_it_keeps_its_keys() -> None:
    (volume,) = json.loads(values("proxy", "VOLUME")[0])
    assert environment("proxy")["XDG_DATA_HOME"] == volume
    (made,) = (rest for rest in values("proxy", "RUN") if "install" in rest)
    assert made.endswith(f"install -d -o 10001 -g 10001 {volume}")
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    assert f"proxy:{volume}" in compose["services"]["proxy"]["volumes"]


@contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """A server that answers every GET with `status`: its port, and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_whether_the_service_is_ready(status: int, healthy: bool) -> None:
    (check,) = values("service", "HEALTHCHECK")
    python, *arguments = json.loads(check.partition("CMD ")[2])
    assert python == "python"
    with answering(status) as (port, asked):
        # Nothing listens on port 9: a check that went through the proxy would fail.
        env = os.environ | {"KIZU_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
        for name in ("no_proxy", "NO_PROXY"):
            env.pop(name, None)
        done = subprocess.run(
            [sys.executable, *arguments], env=env, stderr=subprocess.DEVNULL, check=False
        )
    assert (done.returncode == 0) is healthy
    assert asked == ["/health/ready"]
