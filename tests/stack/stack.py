"""Kizu's compose file, brought up by podman-compose as it stands."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
PROJECT = "kizu"
# All but Grafana, of which there is no stand-in.
BARE = ("proxy", "service", "worker", "postgres", "prometheus")
SERVICES = (*BARE, "connect")
PORTS = {
    "KIZU_PUBLISH_PORT": 18443, "KIZU_PLAIN_PORT": 18000, "GRAFANA_PUBLISH_PORT": 13000,
    "KIZU_OPCUA_PORT": 14840,
}  # fmt: skip
HTTPS = f"https://localhost:{PORTS['KIZU_PUBLISH_PORT']}"
PLAIN = f"http://127.0.0.1:{PORTS['KIZU_PLAIN_PORT']}"
# Debian's aardvark-dns 1.4 may answer nobody for half a minute after a container came or went.
PATIENCE_S = 120


class Stack:
    """The stack of a copy of `deploy` below `folder`, with secrets and volumes of its own."""

    def __init__(self, folder: Path) -> None:
        self._deploy = folder / "deploy"
        self.connect = folder / "connect"
        self.drop = folder / "drop"
        shutil.copytree(DEPLOY, self._deploy, ignore=shutil.ignore_patterns("secrets", ".env"))
        subprocess.run(["bash", self._deploy / "secrets.sh"], check=True)
        settings = {
            "COMPOSE_PROFILES": "cpu,connect", **PORTS, "KIZU_PUBLIC_URL": HTTPS,
            "KIZU_CONNECT_DIR": self.connect, "KIZU_DROP_DIR": self.drop,
        }  # fmt: skip
        lines = [f"{name}={value}\n" for name, value in settings.items()]
        (self._deploy / ".env").write_text("".join(lines))

    def up(self, *services: str) -> None:
        self._compose("up", "--detach", "--no-build", *services)

    def down(self, *, volumes: bool = False) -> None:
        self._compose("down", *(["--volumes"] if volumes else []))

    def stop(self, service: str) -> None:
        self._compose("stop", service)

    def start(self, service: str) -> None:
        self._compose("start", service)

    def restart(self, service: str) -> None:
        podman("restart", name(service))

    def kill(self, service: str) -> None:
        """As a crash does, of which the engine knows nothing."""
        before = self.state(service)
        os.kill(before["Pid"], signal.SIGKILL)
        wait_for(
            lambda: self.state(service)["Running"] and self.state(service)["Pid"] != before["Pid"],
            f"{service} was not started again",
        )

    def state(self, service: str) -> dict:
        return json.loads(podman("inspect", name(service)))[0]["State"]

    def execute(self, service: str, *command: str, given: str = "") -> str:
        return podman("exec", "--interactive", name(service), *command, given=given)

    def log(self, service: str) -> str:
        """Its last lines, whatever became of it."""
        done = subprocess.run(
            ["podman", "logs", "--tail", "40", name(service)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return done.stdout

    def read(self, service: str, path: str) -> bytes:
        return subprocess.run(
            ["podman", "exec", name(service), "cat", path], capture_output=True, check=True
        ).stdout

    def _compose(self, *command: str) -> None:
        compose = [sys.executable, "-m", "podman_compose", "--file", self._deploy / "compose.yaml"]
        done = subprocess.run([*compose, *command], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"podman-compose {command[0]} failed:\n{done.stderr}")


def name(service: str) -> str:
    return f"{PROJECT}_{service}_1"


def podman(*command: str, given: str = "") -> str:
    done = subprocess.run(
        ["podman", *command], input=given, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"podman {' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def answers(path: str) -> bool:
    """Whether the service says 200 to a camera that knows no TLS."""
    try:
        with urllib.request.urlopen(PLAIN + path, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def wait_for(holds: Callable[[], bool], otherwise: str, patience_s: float = PATIENCE_S) -> float:
    """Seconds until it holds. Ends the test where it never does."""
    started = time.monotonic()
    while not holds():
        if time.monotonic() > started + patience_s:
            sys.exit(f"{otherwise} within {patience_s:g} s.")
        time.sleep(0.1)
    return time.monotonic() - started


def hold(holds: bool, what: str) -> None:
    """Say what holds; end the test where it does not."""
    if not holds:
        sys.exit(f"It does not hold: {what}.")
    say(f"holds: {what}")


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)
