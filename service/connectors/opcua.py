"""Results to whoever asks for them by OPC UA: the server, and who may come in."""

import asyncio
import hmac
import logging
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, TypeVar

import structlog
from asyncua import Server, ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.user_managers import UserManager

from service.client import AsyncKizu
from service.connectors.certificate import Certificate
from service.connectors.outbox import Message, Outbox
from service.connectors.receiver import NotReceived, Receiver
from service.connectors.vision_system import VisionSystem
from service.schemas import InspectionResult

log = structlog.get_logger()

T = TypeVar("T")
_FAREWELL_S = 0.5  # for clients to be told, at the intervals that they asked for


class OpcUa(Receiver):
    """A server. A result is received once it stands in the address space and its event went to all
    who listen; who was away fetches it by the methods, and so from the service itself.

    With a `certificate`, clients sign and encrypt (Basic256Sha256); with `users`, passwords by
    name, they log in. Nobody may change anything.
    """

    at_once = 50
    _loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        name: str,
        kizu: AsyncKizu,
        *,
        bind: str = "127.0.0.1",
        port: int = 4840,
        users: Mapping[str, str] | None = None,
        certificate: Certificate | None = None,
        current_s: float = 10.0,
        recipes: Sequence[str] = (),
        verdicts: Sequence[str] = (),
    ) -> None:
        super().__init__(name, recipes=recipes, verdicts=verdicts)
        self._kizu = kizu
        self._bind, self._port = bind, port
        self._users = dict(users or {})
        self._certificate = certificate
        self._current_s = current_s
        self._open: tuple[Server, VisionSystem, asyncio.Task[None]] | None = None

    def run(self, outbox: Outbox, stop: threading.Event) -> None:
        """As every receiver, while a thread of its own answers the clients."""
        with self._answering(), closing(self):
            super().run(outbox, stop)

    def send(self, messages: Sequence[Message]) -> None:
        results = [InspectionResult.model_validate_json(one.content) for one in messages]
        self._do(self._vision().show(results))

    def attend(self) -> None:
        self._vision()

    def close(self) -> None:
        if self._open is not None:
            self._do(self._end(*self._open))
            self._open = None

    @contextmanager
    def _answering(self) -> Iterator[None]:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name=f"kizu-opcua-{self.name}")
        thread.start()
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _vision(self) -> VisionSystem:
        if self._open is None:
            try:
                self._open = self._do(self._begin())
            except OSError as error:
                raise NotReceived(f"nobody can listen at {self._address}: {error}") from error
            log.info("listening", receiver=self.name, url=self._address)
        _, vision, following = self._open
        if following.done():  # which it only is where it failed: the state would stay as it is
            following.result()
        return vision

    async def _begin(self) -> tuple[Server, VisionSystem, asyncio.Task[None]]:
        # It has a line for whatever a stranger sends, and would fill a disk with them.
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        logging.getLogger("asyncua.server.address_space").setLevel(logging.ERROR)
        secured = self._certificate is not None
        server = Server(_Doors(user_manager=_Users(self._users, encrypted=secured)))
        await server.init()
        server.set_endpoint(self._address)
        server.socket_address = self._bind, self._port
        server.set_server_name("Kizu")
        server.product_uri, server.application_type = "urn:kizu", ua.ApplicationType.Server
        await server.set_build_info(
            "urn:kizu", "Kizu", "Kizu", version("kizu"), "", datetime.now(UTC)
        )
        await server.set_application_uri(f"urn:kizu:{self.name}")
        policy = ua.SecurityPolicyType.NoSecurity
        if self._certificate is not None:
            policy = ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt
            await server.load_certificate(self._certificate.certificate)
            await server.load_private_key(self._certificate.private_key)
            await server.set_application_uri(self._certificate.application_uri)
        server.set_security_policy([policy])
        server.set_identity_tokens(
            [ua.UserNameIdentityToken] if self._users else [ua.AnonymousIdentityToken]
        )
        vision = VisionSystem(server, self._kizu, current_s=self._current_s)
        await vision.build()
        await server.start()
        return server, vision, asyncio.create_task(vision.follow())

    async def _end(
        self, server: Server, vision: VisionSystem, following: asyncio.Task[None]
    ) -> None:
        async with self._kizu:
            following.cancel()
            await asyncio.wait([following])
            await vision.halt()
            if server.iserver.subscription_service.subscriptions:
                await asyncio.sleep(_FAREWELL_S)
            await server.stop()

    @property
    def _address(self) -> str:
        host = f"[{self._bind}]" if ":" in self._bind else self._bind
        return f"opc.tcp://{host}:{self._port}"


class _Users(UserManager):
    """Everybody who is let in may read and call methods, and no more."""

    def __init__(self, passwords: Mapping[str, str], *, encrypted: bool) -> None:
        self._passwords = passwords
        self._encrypted = encrypted

    def get_user(
        self,
        iserver: InternalServer,
        username: str | None = None,
        password: str | None = None,
        certificate: Any = None,
    ) -> User | None:
        # asyncua opens a channel without encryption to anybody, to be asked how to come in; who
        # tries to come in by it has shown no certificate, which is none or empty.
        if self._encrypted and not certificate:
            return None
        if not self._passwords:
            return User(role=UserRole.User)
        known = self._passwords.get(username or "")
        same = hmac.compare_digest((known or "").encode(), (password or "").encode())
        if known is None or not same:
            log.warning("a log-in by OPC UA was refused", user=username)
            return None
        return User(role=UserRole.User, name=username)


class _Doors(InternalServer):
    """What asyncua leaves open to strangers is shut."""

    def lookup_external_session(self, auth_token: ua.NodeId) -> None:
        """A session is not given to whoever names its number on another channel: asyncua would do
        so before it asks who they are. A client that lost its connection logs in again."""

    def register_server(self, server: Any, conf: Any = None) -> None:
        """This is no list of servers, for anybody to add to."""
        raise ServiceError(ua.StatusCodes.BadServiceUnsupported)
