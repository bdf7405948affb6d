"""The compose file: valid, complete, safe by default, and true to the service's settings."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from service.connectors.settings import ConnectSettings
from service.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
ENTRY = re.compile(r"^#?([A-Z_]+)=(.*)$", re.MULTILINE)
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+):-([^${}]*)\}")  # one that holds no other
YAMLLINT = """
extends: default
rules:
  line-length: {max: 100}
  document-start: disable
"""

# As the engine sees it: no comments, anchors merged, then variables at their defaults.
RAW = json.dumps(yaml.safe_load(COMPOSE.read_text()))
DEFAULTS: dict[str, str] = {}
FILLED = RAW
while found := VARIABLE.findall(FILLED):
    DEFAULTS |= dict(found)
    FILLED = VARIABLE.sub(r"\2", FILLED)
MODEL = json.loads(FILLED)
INSPECTORS = ("service", "service-gpu")
WORKERS = ("worker", "worker-gpu")
DEVICES = {"service": "cpu", "service-gpu": "cuda", "worker": "cpu", "worker-gpu": "cuda"}


def service(name: str) -> dict[str, Any]:
    return MODEL["services"][name]


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_the_compose_file_follows_the_specification() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    done = run(sys.executable, "-m", "check_jsonschema", *schema, COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "path",
    [path for kind in ("yaml", "yml") for path in DEPLOY.rglob(f"*.{kind}")],
    ids=lambda path: str(path.relative_to(DEPLOY)),
)
def test_yaml_is_tidy(path: Path) -> None:
    done = run(sys.executable, "-m", "yamllint", "--strict", "-d", YAMLLINT, path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_referenced_file_exists() -> None:
    builds = [one["build"] for one in MODEL["services"].values() if "build" in one]
    files = [DEPLOY / build["context"] / build["dockerfile"] for build in builds]
    mounts = [mount for one in MODEL["services"].values() for mount in one.get("volumes", [])]
    files += [DEPLOY / mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    # Of who does not pass results on, nothing but an example is there.
    files.remove(DEPLOY / "./connect")
    assert len(files) == 10
    assert [file for file in files if not file.exists()] == []


def test_every_named_volume_and_secret_is_declared_and_used() -> None:
    services = MODEL["services"].values()
    mounts = [mount for one in services for mount in one.get("volumes", [])]
    assert {m.split(":")[0] for m in mounts if m[0] not in "./"} == set(MODEL["volumes"])
    assert {s for one in services for s in one.get("secrets", [])} == set(MODEL["secrets"])


def test_secrets_stay_out_of_git() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "/deploy/secrets/" in ignored
    for secret in MODEL["secrets"].values():
        assert secret["file"].startswith("./secrets/")


def test_the_example_names_every_variable_with_its_default() -> None:
    assert re.findall(r"(?<!\$)\$(?!\$)", FILLED) == [], "a variable lacks a default"
    example = dict(ENTRY.findall((DEPLOY / ".env.example").read_text()))
    profile = example.pop("COMPOSE_PROFILES")  # read by docker compose itself
    assert example == DEFAULTS
    assert [profile] == service("service")["profiles"]


def test_the_example_of_what_is_passed_on_is_read_and_at_home_in_its_container() -> None:
    connect, example = service("connect"), DEPLOY / "connect.example.toml"
    folders = [mount.split(":")[1] for mount in connect["volumes"]]
    assert Path(connect["command"][-1]).parent == Path(folders[0])
    for text in (example.read_text(), re.sub(r"(?m)^# (?=\[|\w+ = )", "", example.read_text())):
        read = ConnectSettings.model_validate(tomllib.loads(text))
        used = [read.outbox, read.service.key_file, *(one.path for one in read.folder)]
        used += [one.secret_file for one in read.webhook]
        for one in read.opcua:
            used += [one.certificate, one.private_key, *(two.password_file for two in one.users)]
        assert all(str(path).startswith(tuple(folders)) for path in used)
        assert (
            read.service.url
            == f"http://{service('service')['networks']['inside']['aliases'][0]}:8000"
        )
    assert read.webhook and read.folder and read.opcua  # what is shown as a comment, too


@pytest.mark.parametrize("name", INSPECTORS)
def test_the_service_is_given_settings_that_it_has(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = service(name)["environment"]
    given = {key[5:].lower() for key in environment if key.startswith("KIZU_")}
    assert given - set(Settings.model_fields) == set()
    for key, value in environment.items():
        monkeypatch.setenv(key, str(value))
    settings = Settings()
    assert settings.device == DEVICES[name]
    assert (settings.proxies, settings.public_url) == ("*", "https://localhost")
    for field in given - {"database", "device", "proxies", "public_url"}:
        assert getattr(settings, field) == Settings.model_fields[field].default


@pytest.mark.parametrize("pair", [INSPECTORS, WORKERS], ids=["service", "worker"])
def test_two_services_differ_in_their_device_alone(pair: tuple[str, str]) -> None:
    apart = {"profiles", "image", "build", "deploy", "environment"}
    cpu, gpu = (
        {key: value for key, value in service(name).items() if key not in apart} for name in pair
    )
    assert cpu == gpu
    assert [service(name)["profiles"] for name in pair] == [["cpu"], ["gpu"]]
    limits, more = (service(name)["deploy"]["resources"] for name in pair)
    (device,) = more.pop("reservations")["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert limits == more


def test_each_service_is_built_for_its_device() -> None:
    runtimes = [service(name)["build"]["args"]["RUNTIME"] for name in INSPECTORS]
    assert runtimes == [service(name)["profiles"][0] for name in INSPECTORS] == ["cpu", "gpu"]


def test_only_what_is_encrypted_leaves_this_host_by_default() -> None:
    ports = {name: one.get("ports", []) for name, one in MODEL["services"].items()}
    assert ports.pop("proxy") == [
        "0.0.0.0:443:8443", "127.0.0.1:8000:8080", "0.0.0.0:3000:3000",
    ]  # fmt: skip
    assert ports.pop("connect") == ["127.0.0.1:4840:4840"]
    assert [port for rest in ports.values() for port in rest] == []


def test_nobody_gets_to_the_service_but_by_the_proxy() -> None:
    assert MODEL["networks"]["inside"] == {"internal": True}
    for name in INSPECTORS:
        assert service(name)["networks"] == {"inside": {"aliases": ["kizu"]}}
    outside = {name for name, one in MODEL["services"].items() if set(one["networks"]) - {"inside"}}
    assert outside == {"proxy", "connect"}


@pytest.mark.parametrize("name", list(MODEL["services"]))
def test_every_container_is_confined(name: str) -> None:
    confined = service(name)
    assert confined["read_only"]
    assert confined["cap_drop"] == ["ALL"]
    assert confined["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(confined)
    assert confined["pids_limit"] > 0
    assert "memory" in confined["deploy"]["resources"]["limits"]
    assert "/var/run/docker.sock" not in json.dumps(confined)


def test_every_service_comes_back_by_itself() -> None:
    assert {one["restart"] for one in MODEL["services"].values()} == {"unless-stopped"}


def test_postgres_is_healthy_and_durable_before_the_service_starts() -> None:
    for name in INSPECTORS:
        assert service(name)["depends_on"]["postgres"]["condition"] == "service_healthy"
    postgres = service("postgres")
    assert {"fsync=on", "synchronous_commit=on"} <= set(postgres["command"])
    # The initialising server has no TCP: a check by socket would be healthy too early.
    assert postgres["healthcheck"]["test"][:4] == ["CMD", "pg_isready", "-h", "127.0.0.1"]


def enter(tmp_path: Path, secret: Path) -> subprocess.CompletedProcess[str]:
    """Run the service's entrypoint as the engine would, with `echo served` as its command."""
    *shell, script, name = service("service")["entrypoint"]
    script = script.replace("$$", "$")
    assert "/run/secrets/postgres_password" in script
    script = script.replace("/run/secrets/postgres_password", str(secret))
    environment = {"PATH": os.environ["PATH"], "PGPASSFILE": str(tmp_path / "pgpass")}
    return run(*shell, script, name, "echo", "served", env=environment)


def test_the_entrypoint_writes_a_password_file_that_libpq_takes(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a:b\\c\n")
    done = enter(tmp_path, secret)
    assert (done.returncode, done.stdout) == (0, "served\n")
    url = make_url(service("service")["environment"]["KIZU_DATABASE"])
    written = tmp_path / "pgpass"
    assert written.read_text() == f"{url.host}:5432:{url.username}:{url.database}:a\\:b\\\\c\n"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600


def test_without_its_secret_the_service_does_not_start(tmp_path: Path) -> None:
    done = enter(tmp_path, tmp_path / "missing")
    assert done.returncode != 0
    assert done.stdout == ""


def test_the_password_file_lies_in_memory() -> None:
    for name in INSPECTORS:
        passfile = Path(service(name)["environment"]["PGPASSFILE"])
        assert str(passfile.parent) in service(name)["tmpfs"]


@pytest.mark.parametrize(("name", "beside"), list(zip(WORKERS, INSPECTORS, strict=True)))
def test_a_worker_has_what_its_service_has(name: str, beside: str) -> None:
    worker, inspector = service(name), service(beside)
    assert worker["entrypoint"] == inspector["entrypoint"]
    given = worker["environment"]
    assert given["KIZU_DATABASE"] == inspector["environment"]["KIZU_DATABASE"]
    assert set(inspector["volumes"]) <= set(worker["volumes"])
    assert str(Path(given["PGPASSFILE"]).parent) in worker["tmpfs"]
    assert given["KIZU_DEVICE"] == DEVICES[name]


def test_the_secrets_are_made_once(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "secrets.sh", tmp_path)
    for _ in range(2):
        done = run("bash", tmp_path / "secrets.sh")
        assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # a second time, none is made anew
    files = {tmp_path / secret["file"] for secret in MODEL["secrets"].values()}
    assert set((tmp_path / "secrets").iterdir()) == files
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    for file in files:
        assert len(file.read_text().strip()) == 64
        assert stat.S_IMODE(file.stat().st_mode) == 0o444
