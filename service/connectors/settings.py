"""What `kizu connect` is told, in a TOML file."""

import re
import tomllib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from service.client import AsyncKizu, Kizu
from service.connectors.certificate import read_certificate
from service.connectors.folder import Folder
from service.connectors.mqtt import Mqtt
from service.connectors.receiver import Receiver
from service.connectors.webhook import Webhook, key_of
from service.gate import is_loopback
from service.settings import SettingsError

Verdict = Literal["ok", "review", "ng"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
_IMPATIENT_S = 5.0
_LEAST_PASSWORD = 10  # characters, as of a user


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServiceSettings(_Closed):
    """Which service is followed; its key is an operator's, `kizu key add NAME --role operator`."""

    url: str = "http://127.0.0.1:8000"
    key_file: Path | None = None

    def client(self) -> Kizu:
        """Who asks it. Raises SettingsError."""
        return Kizu(self.url, key=self._key)

    def impatient_client(self) -> AsyncKizu:
        """Who asks it once, and rather says now that it does not answer. Raises SettingsError."""
        return AsyncKizu(self.url, key=self._key, patience_s=0, timeout_s=_IMPATIENT_S)

    @property
    def _key(self) -> str | None:
        return _secret(self.key_file) if self.key_file else None


class _ReceiverSettings(_Closed, ABC):
    """Of all recipes and verdicts unless some are named."""

    name: Name
    recipes: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    @abstractmethod
    def receiver(self, service: ServiceSettings) -> Receiver:
        """That one, which may ask the service. Raises SettingsError."""


class WebhookSettings(_ReceiverSettings):
    """An address that is to have results."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    secret_file: Path

    def receiver(self, service: ServiceSettings) -> Receiver:
        secret = _secret(self.secret_file)
        try:
            key_of(secret)
        except ValueError as error:
            raise SettingsError(
                f"{self.secret_file} holds no secret: {error}.",
                remedy='Make one: echo "whsec_$(openssl rand -base64 32)".',
            ) from error
        return Webhook(self.name, self.url, secret, recipes=self.recipes, verdicts=self.verdicts)


class MqttSettings(_ReceiverSettings):
    """A broker that is to have results."""

    host: str
    port: Port | None = None
    topic: Annotated[str, Field(pattern=r"^[^+#\x00]+$")] = "kizu"
    username: str | None = None
    password_file: Path | None = None
    tls: bool = False
    tls_ca: Path | None = None

    def receiver(self, service: ServiceSettings) -> Receiver:
        secure = self.tls or self.tls_ca is not None
        try:
            return Mqtt(
                self.name,
                self.host,
                port=self.port or (8883 if secure else 1883),
                topic=self.topic,
                username=self.username,
                password=_secret(self.password_file) if self.password_file else None,
                tls=secure,
                tls_ca=self.tls_ca,
                recipes=self.recipes,
                verdicts=self.verdicts,
            )
        except OSError as error:  # of TLS, too
            raise SettingsError(
                f"{self.tls_ca} cannot be read: {error}.", remedy="It is PEM."
            ) from error


class OpcUaUser(_Closed):
    """Who may come in."""

    username: Annotated[str, Field(min_length=1)]
    password_file: Path


class OpcUaSettings(_ReceiverSettings):
    """A server at which others ask for results. Beyond this computer it is encrypted, and knows
    who asks, unless it is said to be open."""

    bind: str = "127.0.0.1"
    port: Port = 4840
    users: tuple[OpcUaUser, ...] = ()
    certificate: Path | None = None
    private_key: Path | None = None
    open: bool = False
    current_s: Annotated[float, Field(gt=0, le=3600)] = 10.0

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> "OpcUaSettings":
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together")
        return self

    def receiver(self, service: ServiceSettings) -> Receiver:
        if not (is_loopback(self.bind) or self.open or (self.users and self.certificate)):
            raise SettingsError(
                f"The OPC UA server {self.name!r} is to be reached at {self.bind}, by anybody.",
                remedy="Name users, certificate and private_key, or say open = true.",
            )
        try:  # here: it takes seconds to import, and who has no such server need not wait for it
            from service.connectors.opcua import OpcUa
        except ImportError as error:
            raise SettingsError(
                f"{error.name} is not installed here.", remedy="pip install 'kizu[connect]'."
            ) from error
        pair = None
        if self.certificate is not None and self.private_key is not None:
            pair = read_certificate(self.certificate, self.private_key)
        return OpcUa(
            self.name,
            service.impatient_client(),
            bind=self.bind,
            port=self.port,
            users={one.username: _password(one.password_file) for one in self.users},
            certificate=pair,
            current_s=self.current_s,
            recipes=self.recipes,
            verdicts=self.verdicts,
        )


class FolderSettings(_Closed):
    """A folder whose images are to be inspected."""

    name: Name
    path: Path
    recipe: str
    part: re.Pattern[str] | None = Field(
        None, description="What of a file's name is the part, as its group."
    )
    camera: str | None = None
    settled_s: Annotated[float, Field(gt=0, le=3600)] = 1.0

    @field_validator("part")
    @classmethod
    def _names_a_part(cls, part: re.Pattern[str] | None) -> re.Pattern[str] | None:
        if part is not None and "part" not in part.groupindex:
            raise ValueError("it has no group (?P<part>…)")
        return part

    def folder(self) -> Folder:
        """That one; it need not be there yet, as a network's drive after a power cut."""
        return Folder(
            self.name, self.path, self.recipe, part=self.part, camera=self.camera,
            settled_s=self.settled_s,
        )  # fmt: skip


class MetricsSettings(_Closed):
    """Where Prometheus asks."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9108


class ConnectSettings(_Closed):
    """The whole file."""

    outbox: Path = Path("data/outbox.sqlite3")
    service: ServiceSettings = ServiceSettings()
    metrics: MetricsSettings | None = None
    webhook: tuple[WebhookSettings, ...] = ()
    mqtt: tuple[MqttSettings, ...] = ()
    opcua: tuple[OpcUaSettings, ...] = ()
    folder: tuple[FolderSettings, ...] = ()

    def receivers(self) -> list[Receiver]:
        """All that are named. Raises SettingsError."""
        asked: list[_ReceiverSettings] = [*self.webhook, *self.mqtt, *self.opcua]
        names = [one.name for one in asked]
        if len(set(names)) < len(names):
            raise SettingsError(
                "Two receivers have one name.",
                remedy="Name each [[webhook]], [[mqtt]] and [[opcua]] differently.",
            )
        return [one.receiver(self.service) for one in asked]

    def folders(self) -> list[Folder]:
        """All that are named."""
        return [one.folder() for one in self.folder]


def read_connect_settings(file: Path) -> ConnectSettings:
    """Raises SettingsError."""
    try:
        return ConnectSettings.model_validate(tomllib.loads(file.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}.", remedy="It is TOML.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"{file}: {place}: {first['msg']}.", remedy="See service/CONNECTORS.md."
        ) from error


def _secret(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}.", remedy="Name another.") from error


def _password(file: Path) -> str:
    password = _secret(file)
    if len(password) < _LEAST_PASSWORD:
        raise SettingsError(
            f"The password in {file} has {len(password)} characters.",
            remedy=f"Make one of {_LEAST_PASSWORD} or more: openssl rand -base64 18.",
        )
    return password
