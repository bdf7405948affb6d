"""Results by HTTP to an address of somebody else's, signed as Standard Webhooks has it."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Sequence

import httpx2 as httpx

from service.connectors.outbox import Message
from service.connectors.receiver import NotReceived, Receiver

_TIMEOUT_S = 15.0
_LEAST_KEY = 24  # bytes, of Standard Webhooks


class Webhook(Receiver):
    """POSTs each result as JSON, `{"type": "inspection", "timestamp": …, "data": …}`, and takes any
    2xx for an answer. https://www.standardwebhooks.com names the headers: the id is the same
    however often one is sent, and the signature is of the id, the time and the body.
    """

    def __init__(
        self,
        name: str,
        address: str,
        secret: str,
        *,
        recipes: Sequence[str] = (),
        verdicts: Sequence[str] = (),
    ) -> None:
        super().__init__(name, recipes=recipes, verdicts=verdicts)
        self._address = address
        self._key = key_of(secret)
        self._http = httpx.Client(timeout=_TIMEOUT_S)

    def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._post(message)

    def attend(self) -> None:
        """Nobody is asked before there is something for them."""

    def close(self) -> None:
        self._http.close()

    def _post(self, message: Message) -> None:
        now = int(time.time())
        data = json.loads(message.content)
        envelope = {"type": "inspection", "timestamp": data["creation_time"], "data": data}
        body = json.dumps(envelope, separators=(",", ":")).encode()
        signed = hmac.digest(self._key, f"{message.id}.{now}.".encode() + body, hashlib.sha256)
        headers = {
            "content-type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(now),
            "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        }
        try:
            answer = self._http.post(self._address, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise NotReceived(f"{self._address} does not answer: {error}") from error
        if not answer.is_success:
            raise NotReceived(f"{self._address} answered {answer.status_code}")


def key_of(secret: str) -> bytes:
    """The key in a secret, `whsec_` and its base64. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ValueError("it is no base64") from error
    if len(key) < _LEAST_KEY:
        raise ValueError(f"its key has {len(key)} bytes, and needs {_LEAST_KEY}")
    return key
