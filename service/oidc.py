"""Logging in by the plant's identity provider: OpenID Connect's code flow with PKCE. The provider
says who it is; what they may, Kizu's own users say.
"""

import base64
import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2 as httpx
import jwt
from anyio import CapacityLimiter, to_thread
from pydantic import BaseModel, ValidationError

from service.errors import NotLoggedIn, ProviderFailure, TooMany
from service.gate import is_loopback
from service.settings import Settings, SettingsError

CALLBACK = "/v1/session/oidc/callback"
ATTEMPT_S = 600
_TIMEOUT_S = 5.0
_WAITING = 8
# Those of providers' public keys: one by a shared secret, or none, could be made by others.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
_LEEWAY_S = 60  # clocks differ


class _Description(BaseModel):
    """What a provider says of itself."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


@dataclass(frozen=True)
class Attempt:
    """One that has begun in a browser, which alone may finish it."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> "Attempt":
        """Which nobody can guess."""
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))

    @classmethod
    def read(cls, cookie: str) -> "Attempt":
        """As it was written. Raises NotLoggedIn."""
        parts = cookie.split(".")
        if len(parts) != 3 or not all(parts):
            raise NotLoggedIn("No log-in has begun in this browser.", remedy="Begin again.")
        return cls(*parts)

    def written(self) -> str:
        return f"{self.state}.{self.nonce}.{self.verifier}"


class Provider:
    """The identity provider that the settings name."""

    def __init__(
        self, issuer: str, client_id: str, secret: str, public_url: str, claim: str
    ) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._secret = secret
        self._redirect = public_url.rstrip("/") + CALLBACK
        self._claim = claim
        self._asking = CapacityLimiter(2)
        self._lock = threading.Lock()
        self._description: _Description | None = None
        self._keys: jwt.PyJWKClient | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Provider | None":
        """None where none is named. Raises SettingsError."""
        issuer = settings.oidc_issuer
        if not issuer:
            return None
        address = urlsplit(issuer)
        if address.scheme != "https" and not is_loopback(address.hostname or ""):
            raise SettingsError(
                f"KIZU_OIDC_ISSUER is {issuer}: whoever is on the way could be anybody.",
                remedy="Name it by https.",
            )
        if not (settings.oidc_client_id and settings.oidc_client_secret and settings.public_url):
            raise SettingsError(
                "A log-in by a provider takes more than its address.",
                remedy="Set KIZU_OIDC_CLIENT_ID, KIZU_OIDC_CLIENT_SECRET and KIZU_PUBLIC_URL.",
            )
        try:
            secret = settings.oidc_client_secret.read_text().strip()
        except OSError as error:
            raise SettingsError(
                f"{settings.oidc_client_secret} cannot be read: {error.strerror}."
            ) from error
        return cls(
            issuer, settings.oidc_client_id, secret, settings.public_url, settings.oidc_claim
        )

    async def address(self, attempt: Attempt) -> str:
        """Where a browser goes to prove who sits there. Raises ProviderFailure, TooMany."""
        return await self._apart(lambda: self._address(attempt))

    async def name(self, attempt: Attempt, state: str, code: str) -> str:
        """Whom a browser that came back with a code has proved to be. Raises NotLoggedIn,
        ProviderFailure, TooMany."""
        return await self._apart(lambda: self._name(attempt, state, code))

    async def _apart(self, ask: Callable[[], str]) -> str:
        """The provider may take a while: nobody else's thread waits for it."""
        if self._asking.statistics().tasks_waiting >= _WAITING:
            raise TooMany("Too many log in at once.", remedy="Try again in a moment.")
        return await to_thread.run_sync(ask, limiter=self._asking)

    def _address(self, attempt: Attempt) -> str:
        digest = hashlib.sha256(attempt.verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect,
            "scope": "openid profile email",
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        endpoint = self._described()[0].authorization_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    def _name(self, attempt: Attempt, state: str, code: str) -> str:
        if not hmac.compare_digest(attempt.state.encode(), state.encode()):
            raise NotLoggedIn("This answer is not of the log-in that began.", remedy="Begin again.")
        description, keys = self._described()
        token = self._token(description, code, attempt.verifier)
        try:
            claims = self._claims(token, description.issuer, keys)
        except jwt.PyJWKClientError as error:
            raise ProviderFailure(f"The provider's keys cannot be had: {error}.") from error
        except jwt.InvalidTokenError as error:
            raise NotLoggedIn(f"The provider's word does not count: {error}.") from error
        if not hmac.compare_digest(attempt.nonce.encode(), str(claims["nonce"]).encode()):
            raise NotLoggedIn("The provider's word is of another log-in.", remedy="Begin again.")
        name = claims.get(self._claim)
        if not isinstance(name, str) or not name:
            raise NotLoggedIn(
                f"The provider does not say the {self._claim!r} of who logs in.",
                remedy="Set KIZU_OIDC_CLAIM to one that it says.",
            )
        return name

    def _claims(self, token: str, issuer: str, keys: jwt.PyJWKClient) -> dict[str, Any]:
        which = jwt.get_unverified_header(token).get("kid")
        # A provider that has one key need not say which.
        found = [keys.get_signing_key(which)] if which else keys.get_signing_keys()
        if len(found) != 1:
            raise jwt.InvalidKeyError("it does not say by which of its keys")
        claims: dict[str, Any] = jwt.decode(
            token,
            found[0].key,
            algorithms=list(_ALGORITHMS),
            audience=self._client_id,
            issuer=issuer,
            leeway=_LEEWAY_S,
            options={"require": ["exp", "iat", "iss", "aud", "sub", "nonce"]},
        )
        return claims

    def _token(self, description: _Description, code: str, verifier: str) -> str:
        sent = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect,
            "code_verifier": verifier,
        }
        try:
            answer = httpx.post(
                description.token_endpoint, data=sent, timeout=_TIMEOUT_S,
                auth=(self._client_id, self._secret),
            )  # fmt: skip
        except httpx.HTTPError as error:
            raise ProviderFailure(f"The identity provider does not answer: {error}.") from error
        if answer.status_code == 400:  # RFC 6749: the code is not, or no longer, good
            raise NotLoggedIn("The provider does not know this log-in.", remedy="Begin again.")
        found = answer.json().get("id_token") if answer.status_code == 200 else None
        if not isinstance(found, str):
            raise ProviderFailure(f"The identity provider answers {answer.status_code}.")
        return found

    def _described(self) -> tuple[_Description, jwt.PyJWKClient]:
        with self._lock:
            if self._description is None or self._keys is None:
                self._description = self._describe()
                self._keys = jwt.PyJWKClient(self._description.jwks_uri, timeout=_TIMEOUT_S)
            return self._description, self._keys

    def _describe(self) -> _Description:
        address = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            answer = httpx.get(address, timeout=_TIMEOUT_S).raise_for_status()
            described = _Description.model_validate_json(answer.content)
        except httpx.HTTPError as error:
            raise ProviderFailure(f"The identity provider does not answer: {error}.") from error
        except ValidationError as error:
            raise ProviderFailure(f"{address} does not describe a provider.") from error
        if described.issuer.rstrip("/") != self._issuer.rstrip("/"):
            raise ProviderFailure(f"{self._issuer} calls itself {described.issuer}.")
        return described
