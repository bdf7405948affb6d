"""The proxy, a real one with the file that is deployed, before a service that is closed."""

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest
from sqlalchemy import Engine as Database
from sqlalchemy.orm import Session

from service.app import create_app
from service.engine import FakeEngine
from service.identity import ROLES, Role
from service.settings import Settings
from service.store import accounts
from service.store.database import open_database
from tests.grey_parts import PNG, image, inspect, write_version
from tests.listening import listening
from tests.roles import ROLE_OF, operations

CADDYFILE = Path(__file__).parents[2] / "deploy" / "Caddyfile"
PASSWORD = "three odd words"

pytestmark = pytest.mark.skipif(not shutil.which("caddy"), reason="needs caddy: apt-get install")


@dataclass(frozen=True)
class Proxy:
    """Its ports, and how its certificates are known."""

    https: int
    plain: int
    health: int
    authority: ssl.SSLContext

    def asking(self, key: str = "", *, plain: bool = False) -> httpx.Client:
        url = f"http://127.0.0.1:{self.plain}" if plain else f"https://localhost:{self.https}"
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=url, headers=headers, verify=self.authority, timeout=30)


@contextmanager
def proxy_before(upstream: str, tmp_path: Path, **limits: str) -> Iterator[Proxy]:
    """Run it on free ports; what is deployed has its own."""
    with ExitStack() as held:
        free = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        https, plain, health, grafana = (one.getsockname()[1] for one in free)
    written = CADDYFILE.read_text()
    ports = {"8443": str(https), "8080": str(plain), ":8081": f":{health}"}
    ports[":3000 {"] = f":{grafana} {{"
    for deployed, here in (ports | limits).items():
        assert written.count(deployed) == 1
        written = written.replace(deployed, here)
    (tmp_path / "Caddyfile").write_text(written)
    process = subprocess.Popen(
        ["caddy", "run", "--config", tmp_path / "Caddyfile", "--adapter", "caddyfile"],
        env=os.environ
        | {"KIZU_UPSTREAM": upstream, "XDG_DATA_HOME": str(tmp_path / "state")}
        | {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    try:
        for line in process.stderr:
            if "serving initial configuration" in line:
                break
        else:
            pytest.fail(f"caddy ended with {process.wait()}")
        root = tmp_path / "state" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        authority = ssl.create_default_context(cafile=root)
        while not shakes_hands(https, authority):
            assert process.poll() is None
        yield Proxy(https, plain, health, authority)
    finally:
        process.terminate()
        process.stderr.close()
        process.wait()


def shakes_hands(port: int, authority: ssl.SSLContext) -> bool:
    """Whether it has its certificate, which comes a moment after it listens."""
    with authority.wrap_socket(
        socket.create_connection(("127.0.0.1", port), 20),
        server_hostname="localhost", do_handshake_on_connect=False,
    ) as connection:  # fmt: skip
        try:
            connection.do_handshake()
        except ssl.SSLError:
            return False
    return True


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "data").mkdir()
    database = open_database(f"sqlite:///{tmp_path / 'data' / 'kizu.sqlite3'}")
    yield database
    database.dispose()


@pytest.fixture
def keys(database: Database) -> dict[Role, str]:
    with Session(database) as session, session.begin():
        return {role: accounts.add_key(session, f"a {role}", role) for role in ROLES}


@pytest.fixture
def upstream(tmp_path: Path, database: Database, keys: dict[Role, str]) -> Iterator[str]:
    """Where a service listens whose user is Eva."""
    write_version(tmp_path / "store")
    with Session(database) as session, session.begin():
        accounts.add_user(session, "Eva", "admin", PASSWORD)
    settings = Settings(store=tmp_path / "store", data=tmp_path / "data", access="closed")
    app = create_app(settings, open_engine=lambda bundle: FakeEngine())
    with listening(app) as (host, port):
        yield f"{host}:{port}"
        app.state.live.close()


@pytest.fixture
def proxy(upstream: str, tmp_path: Path) -> Iterator[Proxy]:
    with proxy_before(upstream, tmp_path) as proxy:
        yield proxy


def test_a_camera_is_answered_with_and_without_tls(proxy: Proxy, keys: dict[Role, str]) -> None:
    for plain in (False, True):
        with proxy.asking(keys["camera"], plain=plain) as camera:
            result = inspect(camera, 200)
            assert result["verdict"] == "ng"
            assert camera.get(result["heatmap"]).status_code == 200
            large = camera.post("/v1/inspect", content=bytes(31_000_000), headers=PNG)
            assert (large.status_code, large.json()["verdict"]) == (422, "error")
            too_large = camera.post("/v1/inspect", content=bytes(33_000_000), headers=PNG)
            assert too_large.json()["verdict"] == "error"


def test_without_tls_only_cameras_may_ask(proxy: Proxy, keys: dict[Role, str]) -> None:
    with proxy.asking(keys["admin"]) as api:
        found = list(operations(api.get("/openapi.json").json()))
    with proxy.asking(keys["admin"], plain=True) as api:
        passed = {
            name
            for name, method, address in found
            if "Not without TLS" not in api.request(method, address).text
        }
        for address in ("/", "/app.js", "/metrics", "/docs"):
            assert api.get(address).status_code == 403, address
    around = (
        "/v1/inspect/../recipes",
        "/v2/../v1/recipes",
        "/v2/%2e%2e/v1/recipes",
        "//v1/recipes",
    )
    for address in around:  # as they are: a client would tidy them up
        with socket.create_connection(("127.0.0.1", proxy.plain), 20) as connection:
            asked = f"GET {address} HTTP/1.0\r\nAuthorization: Bearer {keys['admin']}\r\n\r\n"
            connection.sendall(asked.encode())
            status = connection.makefile("rb").readline().split()[1]
        assert status in (b"403", b"404"), (address, status)
    health = {"live", "ready", "server_live", "server_ready"}
    assert passed == {name for name, role in ROLE_OF.items() if role == "camera"} | health


def test_a_session_is_for_https_alone(proxy: Proxy) -> None:
    with proxy.asking() as api:
        asked = {"name": "Eva", "password": PASSWORD}
        answer = api.post("/v1/session", json=asked).raise_for_status()
        assert "; secure" in answer.headers["set-cookie"].lower()
        assert "max-age" in answer.headers["strict-transport-security"]
        assert api.get("/v1/session").json()["name"] == "Eva"


def test_who_guesses_passwords_cannot_say_who_asks(proxy: Proxy) -> None:
    with proxy.asking() as api:
        statuses = [
            api.post(
                "/v1/session", json={"name": f"user {number}", "password": "a guess or so"},
                headers={"x-forwarded-for": f"10.0.0.{number}"},
            ).status_code
            for number in range(52)
        ]  # fmt: skip
    assert statuses[0] == 401
    assert statuses[-1] == 429


def test_events_come_through_as_they_happen(proxy: Proxy, keys: dict[Role, str]) -> None:
    with proxy.asking(keys["operator"]) as api, api.stream("GET", "/v1/events") as told:
        lines = told.iter_lines()
        assert next(lines) == "event: reset"
        id = inspect(api, 50)["id"]
        assert any(line == f"id: {id}" for line in lines)


@pytest.mark.parametrize("host", ["other.plant", "127.0.0.1"])
def test_under_any_other_name_nothing_is_answered(
    proxy: Proxy, keys: dict[Role, str], host: str
) -> None:
    with proxy.asking(keys["camera"]) as camera:
        answer = camera.post("/v1/inspect", content=image(50), headers=PNG | {"host": host})
    assert (answer.status_code, answer.json()["verdict"]) == (421, "error")


def test_where_no_service_is_a_part_is_in_error(tmp_path: Path) -> None:
    with proxy_before("127.0.0.1:9", tmp_path) as proxy:
        for plain in (False, True):
            with proxy.asking(plain=plain) as camera:
                answer = camera.post("/v1/inspect", content=image(50), headers=PNG)
            assert (answer.status_code, answer.json()["verdict"]) == (502, "error")
        health = httpx.get(f"http://127.0.0.1:{proxy.health}/")
        assert health.status_code == 200  # of the proxy


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1/inspect HT", b"POST /v1/inspect HTTP/1.1\r\nHost: localhost\r\n"
             b"Content-Type: image/png\r\nContent-Length: 1000\r\n\r\nxy"],
)  # fmt: skip
@pytest.mark.parametrize("plain", [False, True])
def test_who_does_not_go_on_to_send_is_closed(
    upstream: str, tmp_path: Path, sent: bytes, plain: bool
) -> None:
    short = {"read_header 15s": "read_header 1s", "read_body 30s": "read_body 1s"}
    with (
        proxy_before(upstream, tmp_path, **short, **{"idle 60s": "idle 1s"}) as proxy,
        socket.create_connection(("127.0.0.1", proxy.plain if plain else proxy.https), 20) as slow,
        ExitStack() as held,
    ):
        if not plain:
            slow = held.enter_context(
                proxy.authority.wrap_socket(slow, server_hostname="localhost")
            )
        slow.sendall(sent)
        answer = b""
        while piece := slow.recv(4096):
            answer += piece
    assert b" 200 " not in answer
