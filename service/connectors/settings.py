"""What `kizu connect` is told, in a TOML file."""

import re
import tomllib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from service.connectors.folder import Folder
from service.connectors.mqtt import Mqtt
from service.connectors.receiver import Receiver
from service.connectors.webhook import Webhook, key_of
from service.settings import SettingsError

Verdict = Literal["ok", "review", "ng"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServiceSettings(_Closed):
    """Which service is followed; its key is an operator's, `kizu key add NAME --role operator`."""

    url: str = "http://127.0.0.1:8000"
    key_file: Path | None = None


class _ReceiverSettings(_Closed, ABC):
    """Of all recipes and verdicts unless some are named."""

    name: Name
    recipes: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    @abstractmethod
    def receiver(self) -> Receiver:
        """Raises SettingsError."""


class WebhookSettings(_ReceiverSettings):
    """An address that is to have results."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    secret_file: Path

    def receiver(self) -> Receiver:
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
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    topic: Annotated[str, Field(pattern=r"^[^+#\x00]+$")] = "kizu"
    username: str | None = None
    password_file: Path | None = None
    tls: bool = False
    tls_ca: Path | None = None

    def receiver(self) -> Receiver:
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
    folder: tuple[FolderSettings, ...] = ()

    def receivers(self) -> list[Receiver]:
        """All that are named. Raises SettingsError."""
        asked: list[_ReceiverSettings] = [*self.webhook, *self.mqtt]
        names = [one.name for one in asked]
        if len(set(names)) < len(names):
            raise SettingsError(
                "Two receivers have one name.",
                remedy="Name each [[webhook]] and [[mqtt]] differently.",
            )
        return [one.receiver() for one in asked]

    def folders(self) -> list[Folder]:
        """All that are named."""
        return [one.folder() for one in self.folder]

    @property
    def key(self) -> str | None:
        """The service's key. Raises SettingsError."""
        return _secret(self.service.key_file) if self.service.key_file else None


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
            f"{file}: {place}: {first['msg']}.", remedy="See service/README.md."
        ) from error


def _secret(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}.", remedy="Name another.") from error
