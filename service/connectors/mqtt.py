"""Results to an MQTT broker, with word of whether anybody sends them."""

import json
import re
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion

from service.connectors.outbox import Message
from service.connectors.receiver import NotReceived, Receiver

log = structlog.get_logger()

_PATIENCE_S = 10.0
_KEEPALIVE_S = 15
# What a topic's level cannot hold.
_UNFIT = re.compile(r"[/+#\x00-\x1f]")


class Mqtt(Receiver):
    """Publishes each result as JSON at `<topic>/<recipe>/<camera>/result`, `-` where no camera was
    named, with quality of service 1: at least once, in order.

    `<topic>/state` is retained: `online` once it is connected, and `offline` when it ends, however
    it does, as a Sparkplug node's birth and death are. `birth` is the same in both, so that nobody
    takes an old death for a new one.
    """

    at_once = 50

    def __init__(
        self,
        name: str,
        host: str,
        *,
        port: int = 1883,
        topic: str = "kizu",
        username: str | None = None,
        password: str | None = None,
        tls_ca: Path | None = None,
        tls: bool = False,
        recipes: Sequence[str] = (),
        verdicts: Sequence[str] = (),
    ) -> None:
        super().__init__(name, recipes=recipes, verdicts=verdicts)
        self._host, self._port, self._topic = host, port, topic
        self._login = (username, password) if username else None
        self._tls = ssl.create_default_context(cafile=tls_ca) if tls or tls_ca else None
        self._client: paho.Client | None = None
        self._birth = 0

    def send(self, messages: Sequence[Message]) -> None:
        with self._given_up_at_an_error():
            client = self._connected()
            sent = [client.publish(self._place(one), one.content, qos=1) for one in messages]
            until = time.monotonic() + _PATIENCE_S
            for one in sent:
                one.wait_for_publish(max(0.0, until - time.monotonic()))
                if not one.is_published():
                    raise NotReceived(f"{self._host}:{self._port} does not acknowledge")

    def attend(self) -> None:
        # Who reads the state tells by it that nothing is to be sent from that nobody sends.
        with self._given_up_at_an_error():
            self._connected()

    def close(self) -> None:
        try:
            with self._given_up_at_an_error():
                if self._client is not None:
                    offline = self._client.publish(*self._state("offline"), qos=1, retain=True)
                    offline.wait_for_publish(_PATIENCE_S)
        except NotReceived as error:
            log.warning("the broker tells of the end by itself", error=str(error))
        self._drop()

    def _connected(self) -> paho.Client:
        if self._client is not None and not self._client.is_connected():
            self._drop()
        if self._client is None:
            self._birth = int(time.time() * 1000)
            # Nothing that it still holds may come after what is sent anew: one that has lost its
            # connection is given up, and the outbox has all of it.
            client = paho.Client(
                CallbackAPIVersion.VERSION2,
                client_id=f"kizu-{self.name}",
                reconnect_on_failure=False,
            )
            if self._login:
                client.username_pw_set(*self._login)
            if self._tls:
                client.tls_set_context(self._tls)
            client.will_set(*self._state("offline"), qos=1, retain=True)
            answered = _Answer()
            client.on_connect = answered
            client.connect(self._host, self._port, keepalive=_KEEPALIVE_S)
            client.loop_start()
            self._client = client
            answered.wait()
            client.publish(*self._state("online"), qos=1, retain=True)
        return self._client

    @contextmanager
    def _given_up_at_an_error(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            self._drop()
            raise NotReceived(f"{self._host}:{self._port} cannot be reached: {error}") from error
        except NotReceived:
            self._drop()
            raise

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _state(self, state: str) -> tuple[str, str]:
        return f"{self._topic}/state", json.dumps({"state": state, "birth": self._birth})

    def _place(self, message: Message) -> str:
        result = json.loads(message.content)
        camera = _UNFIT.sub("_", result["camera"] or "-")
        return f"{self._topic}/{result['recipe_id']}/{camera}/result"


class _Answer:
    """The broker's to who connects."""

    def __init__(self) -> None:
        self._came = threading.Event()
        self._reason: Any = None

    def __call__(self, _: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
        self._reason = reason
        self._came.set()

    def wait(self) -> None:
        """Raises NotReceived."""
        if not self._came.wait(_PATIENCE_S):
            raise NotReceived("The broker does not answer.")
        if self._reason.is_failure:
            raise NotReceived(f"The broker refuses: {self._reason}.")
