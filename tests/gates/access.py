"""Everything in the API, asked by everybody, in the right way and in all ways that might lead past
the gate: nobody gets more than their role takes."""

import http.client
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import product
from pathlib import Path
from urllib.parse import quote

import numpy as np
from sqlalchemy import Engine as Database
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.app import create_app
from service.engine import FakeEngine
from service.gate import COOKIE, CSRF_HEADER, csrf
from service.identity import ROLES, Role
from service.settings import Settings
from service.store import accounts
from service.store.database import open_database
from service.store.tables import Base
from tests.gates.gate import Findings
from tests.grey_parts import write_version
from tests.listening import listening
from tests.roles import ROLE_OF, operations

FEW = 150  # ways around, in the short form
_SAFE = ("GET", "HEAD", "OPTIONS")
_LOGS_IN = ROLES[1:]
_TRIES = 52  # of passwords, from one address; the last ones wait
_PASSWORD = "three odd words"

Operation = tuple[str, str, str]
Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Caller:
    """Who asks, and what they show. Without `role` nobody known; a `page` shows what other sites'
    pages cannot."""

    name: str
    role: Role | None = None
    headers: Headers = field(default_factory=list)
    page: bool = True

    def may(self, operation: str, method: str) -> bool:
        """Whether the gate lets them through to an operation."""
        needed = ROLE_OF[operation]
        if not self.page and method not in _SAFE:
            return False
        if needed is None:
            return True
        return self.role is not None and ROLES.index(self.role) >= ROLES.index(needed)


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """Every operation by every caller; then ways around, a few of them or all."""
    found = Findings(seed=12)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_version(folder / "store")
        (folder / "data").mkdir()
        settings = Settings(store=folder / "store", data=folder / "data", access="closed")
        database = open_database(settings.database_url)
        callers = _callers(database)
        app = create_app(settings, open_engine=lambda bundle: FakeEngine())
        with listening(app) as (host, port):
            asker = Asker(host, port, found)
            everything = [(name, *asked) for asked, name in asker.operations.items()]
            if missing := set(asker.operations.values()) ^ set(ROLE_OF):
                found.fail(f"tests/roles.py and the API do not agree on {missing}")
            before = _rows(database)
            asked = list(product(everything, callers))
            for number, (operation, caller) in enumerate(asked):
                _knock(asker, operation, caller)
                progress(0.3 * (number + 1) / len(asked))
            around = list(_ways_around(everything, callers))
            if not full:
                rng = np.random.default_rng(found.seed)
                around = [around[n] for n in rng.choice(len(around), FEW, replace=False)]
            for number, way in enumerate(around):
                _steal_past(asker, *way)
                progress(0.3 + 0.6 * (number + 1) / len(around))
            if (after := _rows(database)) != before:
                found.fail(f"what was refused has left something behind: {before} {after}")
            if full:
                _guess(host, port, found)
            asker.close()
            app.state.live.close()
        database.dispose()
    progress(1.0)
    return found


def _callers(database: Database) -> list[Caller]:
    with Session(database) as session, session.begin():
        keys = {role: accounts.add_key(session, f"a {role}", role) for role in ROLES}
        users = {role: accounts.add_user(session, role, role, _PASSWORD) for role in _LOGS_IN}
        session.flush()
        tokens = {
            role: accounts.log_in(session, user, timedelta(hours=1)) for role, user in users.items()
        }
        ended = accounts.log_in(session, users["admin"], timedelta(seconds=-1))
        revoked = accounts.add_key(session, "revoked", "admin")
        session.flush()
        accounts.revoke_key(session, "revoked")
    admin = tokens["admin"]
    return [
        Caller("nobody"),
        *(Caller(f"a key {secret!r}", None, _key(secret)) for secret in (
            "", "kizu_no", revoked, keys["admin"][:-1], keys["admin"].upper(),
            accounts.digest(keys["admin"]),
        )),
        Caller("a key in another form", None, [("Authorization", f"Basic {keys['admin']}")]),
        Caller("a key without a form", None, [("Authorization", keys["admin"])]),
        Caller("a session that has ended", None, _session(ended)),
        Caller("a session that never was", None, _session("x" * 43)),
        Caller("a bad key beside a session", None, [*_key("kizu_no"), *_session(admin)]),
        Caller("a camera beside a session", "camera", [*_key(keys["camera"]), *_session(admin)]),
        *(Caller(f"a key of {role}", role, _key(keys[role])) for role in ROLES),
        *(Caller(f"a session of {role}", role, _session(tokens[role])) for role in _LOGS_IN),
        Caller("another site's page", "admin", [("Cookie", f"{COOKIE}={admin}")], page=False),
        Caller(
            "a page with another's token", "admin",
            [("Cookie", f"{COOKIE}={admin}"), (CSRF_HEADER, csrf(tokens["operator"]))], page=False,
        ),
    ]  # fmt: skip


def _key(secret: str) -> Headers:
    return [("Authorization", f"Bearer {secret}")]


def _session(token: str) -> Headers:
    return [("Cookie", f"{COOKIE}={token}"), (CSRF_HEADER, csrf(token))]


class Asker:
    """Sends requests as they are written, over one connection as long as it holds."""

    def __init__(self, host: str, port: int, found: Findings) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=30)
        self.found = found
        described = json.loads(self.ask("GET", "/openapi.json", [])[2])
        self.operations = {(how, where): name for name, how, where in operations(described)}
        self.pages = [self.ask("GET", page, [])[2] for page in ("/", "/app.js", "/docs")]

    def ask(self, method: str, target: str, headers: Headers) -> tuple[int, str, bytes]:
        """Status, type and body of the answer; of what never ends, no body."""
        self._connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers:
            self._connection.putheader(name, value)
        if method not in _SAFE:
            self._connection.putheader("Content-Length", "0")
        self._connection.endheaders()
        answer = self._connection.getresponse()
        kind = answer.headers.get("content-type", "")
        body = b"" if kind.startswith("text/event-stream") else answer.read()
        if not answer.isclosed() or answer.will_close:
            self._connection.close()
        return answer.status, kind, body

    def close(self) -> None:
        self._connection.close()


def _knock(asker: Asker, operation: Operation, caller: Caller) -> None:
    """As the description says, with nothing to carry out."""
    name, method, address = operation
    if name in ("log_out", "log_in"):  # the session is still needed; and nobody is refused
        return
    asker.found.count("asked")
    status, _, body = asker.ask(method, address, caller.headers)
    refused = status in (401, 403)
    told_bad_key = caller.role is None and caller.headers and refused  # also where all may
    if refused == caller.may(name, method) and not told_bad_key:
        asker.found.fail(f"{name} by {caller.name}: {status} {body[:200]!r}")
    if status >= 500:
        asker.found.fail(f"{name} by {caller.name}: {status} {body[:200]!r}")


def _ways_around(
    everything: list[Operation], callers: list[Caller]
) -> Iterator[tuple[Operation, Caller, str, str, Headers]]:
    """What nobody, or only a camera, asks in another way: operation, method, address, headers."""
    tried = [
        one for one in callers if one.name in ("nobody", "a key of camera", "another site's page")
    ]
    admin = next(one.headers for one in callers if one.name == "a key of admin")
    for operation, caller in product(everything, tried):
        name, method, address = operation
        if caller.may(name, method):
            continue
        for way in _addresses(address):
            yield operation, caller, method, way, caller.headers
        for way in _methods(method):
            yield operation, caller, way, address, caller.headers
        for shown in _headers(method, address):
            yield operation, caller, method, address, [*caller.headers, *shown]
            yield operation, caller, "GET", "/", [*caller.headers, *shown]
        secret = admin[0][1].removeprefix("Bearer ")
        for query in (f"key={secret}", f"access_token={secret}", f"authorization=Bearer+{secret}"):
            yield operation, caller, method, f"{address}?{query}", caller.headers
        if caller.headers[:1] and caller.headers[0][0] == "Authorization":
            # Of two the first one counts, whoever reads them after the gate.
            yield operation, caller, method, address, [*caller.headers, *admin]


def _addresses(address: str) -> Iterator[str]:
    """The same place, if one reads it so."""
    first, rest = address.split("/", 2)[1], address.removeprefix("/")
    yield from (
        f"/{address}", f"//kizu{address}", f"/.{address}", f"/x/..{address}", f"/%2e%2e{address}",
        f"/app.js/..{address}", f"/app.js%2f..{address}", f"/docs/..{address}",
        f"/health/live/../..{address}", f"/v1/session/../..{address}", f"/v1/session{address}",
        f"/v1/session;{address}", f"/v1/session%3f{address}", f"/v2/health/live/../../..{address}",
        f"{address}/", f"{address}//", f"{address}/.", f"{address}%2f", f"{address}%20",
        f"{address}%00", f"{address}%0a", f"{address};x", f"{address}?", f"{address}#x",
        f"{address}.js", f"{address}%3f", f"{address}/../../v1/session", f"{address}%23/v1/session",
        f"/{quote(first[0], safe='')}{rest[1:]}", f"/%{ord(first[0]):02x}{rest[1:]}",
        f"/%25{ord(first[0]):02x}{rest[1:]}", address.replace("/", "%2f"),
        *("/" + rest.replace("/", sign) for sign in ("%2f", "//", "/./", "%5c", "\\")),
        address.upper(),
        f"/{first.upper()}{address.removeprefix(f'/{first}')}", f"http://127.0.0.1{address}",
        f"http://kizu/v1/session{address}",
    )  # fmt: skip


def _methods(method: str) -> Iterator[str]:
    yield from (
        one
        for one in ("GET", "HEAD", "OPTIONS", "TRACE", "PATCH", "PUT", "DELETE", "POST", "PROPFIND")
        if one != method
    )


def _headers(method: str, address: str) -> Iterator[Headers]:
    """What some server somewhere believes."""
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        yield [(name, "GET" if method != "GET" else "HEAD")]
    for name in ("X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Forwarded-Path"):
        yield [(name, address)]
        yield [(name, "/v1/session")]
    for name in ("X-Forwarded-For", "X-Real-IP", "X-Client-IP", "X-Forwarded-Host", "Client-IP"):
        yield [(name, "127.0.0.1")]
    for name in ("X-Forwarded-User", "X-Remote-User", "Remote-User", "X-Role", "X-Kizu-Role"):
        yield [(name, "admin")]
    yield [("Forwarded", "for=127.0.0.1;host=localhost;proto=https")]
    yield [("X-Forwarded-Prefix", "/v1")]
    yield [("Host", "localhost")]
    yield [("Sec-Fetch-Site", "same-origin"), ("Origin", "http://127.0.0.1")]
    yield [("Upgrade", "websocket"), ("Connection", "Upgrade")]
    yield [("Expect", "100-continue")]
    yield [("Cookie", f"{COOKIE}=")]
    yield [("Cookie", f"{COOKIE}=a; {COOKIE}=b")]


def _steal_past(
    asker: Asker, operation: Operation, caller: Caller, method: str, target: str, headers: Headers
) -> None:
    """Nothing may be had but what is anybody's: the console's files, and who one is."""
    asker.found.count("ways around")
    what = f"{operation[0]} by {caller.name}: {method} {target} {headers[len(caller.headers) :]}"
    try:
        status, kind, body = asker.ask(method, target, headers)
    except (OSError, http.client.HTTPException) as error:
        asker.found.fail(f"{what}: {error!r}")
        asker.close()
        return
    if status >= 500:
        asker.found.fail(f"{what}: {status} {body[:200]!r}")
    asked = asker.operations.get((method, target.partition("?")[0]))
    if not 200 <= status < 300 or (asked and caller.may(asked, method)):
        return
    if asked == "log_out":  # of a session that there is not; one that is there is counted
        return
    page = body in asker.pages or (method == "HEAD" and kind.startswith("text/"))
    if not page and b'"csrf":null' not in body:
        asker.found.fail(f"{what}: {status} {body[:200]!r}")


def _guess(host: str, port: int, found: Findings) -> None:
    """Whoever comes from elsewhere does not become somebody else by saying so."""
    statuses = []
    for number in range(_TRIES):
        connection = http.client.HTTPConnection(
            host, port, timeout=30, source_address=("127.0.0.2", 0)
        )
        headers = {"Content-Type": "application/json", "X-Forwarded-For": f"10.0.0.{number}"}
        body = f'{{"name": "name {number}", "password": "a guess"}}'
        connection.request("POST", "/v1/session", body, headers)
        statuses.append(connection.getresponse().status)
        connection.close()
        found.count("guesses")
    if statuses[-1] != 429:
        found.fail(f"an address that guesses passwords is told {statuses}")


def _rows(database: Database) -> dict[str, int]:
    with Session(database) as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }
