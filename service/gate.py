"""The gate: who a request comes from, and how often it may come."""

import hmac
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import cast
from urllib.parse import urlsplit

import structlog
from anyio import CapacityLimiter, to_thread
from sqlalchemy import Engine as Database
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.requests import Request

from service.errors import Forbidden, NotLoggedIn, TooLarge, TooMany
from service.identity import ANYONE, Access, Identity, Role
from service.store import accounts
from service.store.tables import ApiKey, User

log = structlog.get_logger()

COOKIE = "kizu_session"
CSRF_HEADER = "X-Kizu-CSRF"
_LOOK_EVERY_S = 2.0
_SAFE = ("GET", "HEAD", "OPTIONS")
# So many wrong passwords are mistakes, of a name and of an address, behind which a whole plant may
# sit. After them it waits: twice as long each time.
_MISTAKES = {"name": 5, "address": 50}
_WAIT_S, _LONGEST_WAIT_S = 2.0, 300.0
_REMEMBERED = 10_000
_WAITING = 8
_NOT_OURS = "The request does not come from Kizu's own page."


class Gate:
    """Knows who may come in: keys as they were seconds ago, even while the database is away, and
    users who have logged in."""

    def __init__(
        self,
        database: Database,
        *,
        access: Access,
        host: str,
        session_hours: float,
        public_url: str = "",
    ) -> None:
        self._database = database
        self._always_closed = access == "closed" or (access == "auto" and not is_loopback(host))
        self._never_closed = access == "open"
        self._names = {urlsplit(public_url).hostname, socket.gethostname().lower()}
        self._lasting = timedelta(hours=session_hours)
        self._somebody = False
        self._keys: dict[str, _Key] = {}
        self._logged_in: dict[str, tuple[Identity, float]] = {}
        self._tries = _Tries()
        # Whoever is not known must not take what cameras need: each try of a password takes 64 MB
        # and a core, and whoever waits for one would hold a thread.
        self._hashing = CapacityLimiter(1)
        self._logging_in = 0  # the one whose password is looked at, and those that wait
        self._looking = CapacityLimiter(4)
        self._stop = threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._loop, name="kizu-gate", daemon=True)
        self._thread.start()
        if not self.closed:
            log.warning("open to whoever reaches this address: see kizu user and kizu key")
        elif not self._somebody:
            log.warning("nobody can log in yet: kizu user add NAME --role admin")

    @property
    def closed(self) -> bool:
        """Whether one has to be known to come in."""
        return self._always_closed or (self._somebody and not self._never_closed)

    async def identify(self, request: Request) -> Identity | None:
        """Who asks; None where nobody known does. Raises Forbidden, TooLarge or TooMany."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._by_key(secret.strip(), request)
        token = request.cookies.get(COOKIE)
        if token:
            identity = await self._by_token(token)
            if identity and request.method not in _SAFE:
                _check_page(token, request)
            if identity:
                return identity
        if self.closed:
            return None
        # Where nobody has to be known, a browser would carry out what any page asks of it; also a
        # page whose own name was made to lead here.
        if not self._is_own(request.url.hostname or ""):
            raise Forbidden(
                "The service is not known by that name.",
                remedy="Ask by its number, or name it in KIZU_PUBLIC_URL.",
            )
        elsewhere = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if elsewhere and request.method not in _SAFE:
            raise Forbidden(_NOT_OURS, remedy="Do it on Kizu's own page.")
        return ANYONE

    async def log_in(self, name: str, password: str, address: str) -> tuple[Identity, str]:
        """Whose name and password these are, and the token of a session. Raises NotLoggedIn,
        Forbidden or TooMany."""
        tried = {"name": name, "address": address}
        self._tries.check(tried)
        # Counted here: the limiter does not know yet of those that came in this very moment.
        if self._logging_in > _WAITING:
            raise TooMany("Too many log in at once.", remedy="Try again in a moment.")
        self._logging_in += 1
        try:
            return await to_thread.run_sync(
                self._log_in, name, password, tried, limiter=self._hashing
            )
        finally:
            self._logging_in -= 1

    def _log_in(self, name: str, password: str, tried: dict[str, str]) -> tuple[Identity, str]:
        with Session(self._database) as session, session.begin():
            user = accounts.verified(session, name, password)
            if user is None or not accounts.unchanged(session, user):
                self._tries.failed(tried)
                log.warning("log-in refused", **tried)
                raise NotLoggedIn("This name and password do not belong together.")
            if user.role == "camera":
                raise Forbidden(
                    "A camera does not log in.", remedy="Give it a key: kizu key add NAME."
                )
            self._tries.forget("name", name)
            return _user(user), accounts.log_in(session, user, self._lasting)

    def log_in_as(self, name: str) -> str:
        """The token of a session of somebody whom the identity provider vouches for. Raises
        Forbidden where they may not come in here."""
        with Session(self._database) as session, session.begin():
            user = session.get(User, name)
            if user is None or user.role == "camera" or not accounts.unchanged(session, user):
                log.warning("log-in refused", name=name)
                raise Forbidden(
                    f"{name!r} may not come in.", remedy="kizu user add NAME --by-provider"
                )
            return accounts.log_in(session, user, self._lasting)

    def log_out(self, token: str) -> None:
        """End a session."""
        token_digest = accounts.digest(token)
        self._logged_in.pop(token_digest, None)
        with Session(self._database) as session, session.begin():
            accounts.log_out(session, token_digest)

    def close(self) -> None:
        """Stop looking for new keys."""
        self._stop.set()
        self._thread.join()

    def _is_own(self, name: str) -> bool:
        """Whether it can be the service's: a stranger's has a dot, and is not a number."""
        return "." not in name or _is_number(name) or name.lower() in self._names

    def _by_key(self, secret: str, request: Request) -> Identity:
        key = self._keys.get(accounts.digest(secret))
        if key is None:
            raise NotLoggedIn(
                "This key opens nothing.", remedy="Ask for a new one: kizu key add NAME."
            )
        key.check(request)
        return key.identity

    async def _by_token(self, token: str) -> Identity | None:
        token_digest = accounts.digest(token)
        found = self._logged_in.get(token_digest)
        if found and found[1] > time.monotonic():
            return found[0]
        identity = await to_thread.run_sync(self._look_up, token_digest, limiter=self._looking)
        self._logged_in.pop(token_digest, None)
        if identity:
            if len(self._logged_in) >= _REMEMBERED:
                self._logged_in.clear()
            self._logged_in[token_digest] = identity, time.monotonic() + _LOOK_EVERY_S
        return identity

    def _look_up(self, token_digest: str) -> Identity | None:
        with Session(self._database) as session:
            user = accounts.logged_in(session, token_digest, self._lasting)
            return _user(user) if user else None

    def _loop(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            try:
                self._look()
            except SQLAlchemyError as error:
                log.warning("keys not read", error=str(error).splitlines()[0])

    def _look(self) -> None:
        """Read keys anew; those that stay go on with what they may still ask for."""
        with Session(self._database) as session:
            rows = {row.digest: row for row in accounts.keys(session)}
            self._somebody = bool(rows) or bool(accounts.users(session))
            self._keys = {
                digest: self._keys.get(digest)
                or _Key(_known(row), row.max_bytes, _Rate(row.per_second))
                for digest, row in rows.items()
            }


@dataclass(frozen=True)
class _Key:
    """A key in force, and how much it may ask for."""

    identity: Identity
    max_bytes: int | None
    rate: "_Rate"

    def check(self, request: Request) -> None:
        """Raise what is to be told to who asks for too much."""
        declared = request.headers.get("content-length", "")
        if self.max_bytes is not None and request.method not in _SAFE:
            # Without a length it would have to be counted while it comes, and cut off.
            if not declared.isdecimal():
                raise TooLarge("This key must say how large a body is.", remedy="Send its length.")
            if int(declared) > self.max_bytes:
                raise TooLarge(f"This key sends bodies of {self.max_bytes:,} bytes at most.")
        self.rate.take()


class _Rate:
    """So many a second, and as many at once after a second of silence."""

    def __init__(
        self, per_second: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._clock = clock
        self._left = self._most = max(1.0, per_second or 0)
        self._seen = clock()

    def take(self) -> None:
        """Raise TooMany where nothing is left."""
        if self._per_second is None:
            return
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._seen) * self._per_second)
        self._seen = now
        if self._left < 1:
            raise TooMany(f"This key asks {self._per_second:g} times a second at most.")
        self._left -= 1


class _Tries:
    """Wrong passwords, by name and by address, and until when each waits."""

    def __init__(self) -> None:
        self._failed: dict[tuple[str, str], tuple[int, float]] = {}
        self._lock = threading.Lock()

    def check(self, whose: dict[str, str]) -> None:
        """Raise TooMany for whom tries too often."""
        now = time.monotonic()
        with self._lock:
            waits = [self._failed[one][1] - now for one in whose.items() if one in self._failed]
        if waits and max(waits) > 0:
            error = TooMany("Too many wrong passwords.", remedy="Try again later.")
            error.retry_after_s = int(max(waits)) + 1
            raise error

    def failed(self, whose: dict[str, str]) -> None:
        """Remember a wrong one."""
        with self._lock:
            if len(self._failed) >= _REMEMBERED:
                self._failed.clear()
            for one in whose.items():
                count = self._failed.get(one, (0, 0.0))[0] + 1
                over = count - _MISTAKES[one[0]]
                wait = min(_LONGEST_WAIT_S, _WAIT_S * 2**over) if over >= 0 else 0.0
                self._failed[one] = count, time.monotonic() + wait

    def forget(self, kind: str, one: str) -> None:
        """It was right at last."""
        with self._lock:
            self._failed.pop((kind, one), None)


def csrf(token: str) -> str:
    """What a page must show beside the cookie: another site's page cannot read it."""
    return hmac.digest(token.encode(), b"csrf", "sha256").hex()


def _check_page(token: str, request: Request) -> None:
    shown = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(shown.encode(), csrf(token).encode()):
        raise Forbidden(_NOT_OURS, remedy="Load the page again.")


def _user(user: User) -> Identity:
    return Identity(user.name, cast(Role, user.role), "user")


def _known(key: ApiKey) -> Identity:
    return Identity(key.name, cast(Role, key.role), "key")


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    return host == "localhost" or (_is_number(host) and ipaddress.ip_address(host).is_loopback)
