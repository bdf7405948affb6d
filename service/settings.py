"""Deployment facts: where, how many, on which device. How to score is the bundle's business."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.errors import KizuError
from models.session import Device, Precision
from service.disk_full import DiskFull
from service.identity import Access
from service.promotions import Promotions


class SettingsError(KizuError):
    """A setting that the service cannot start with."""


class Settings(BaseSettings):
    """Every setting of the service; each is also a variable `KIZU_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="KIZU_", frozen=True, extra="forbid")

    store: Path = Field(Path("models/bundles"), description="Directory of bundles.")
    data: Path = Field(Path("data"), description="Directory for images, heatmaps and the database.")
    database: str = Field(
        "",
        description="SQLAlchemy URL; by default SQLite, as kizu.sqlite3 in the data directory.",
    )
    blobs: str = Field(
        "",
        description="Address of an object store for images and heatmaps, such as s3://bucket/kizu, "
        "which several services share; by default they are in the data directory.",
    )
    bundles: str = Field(
        "",
        description="Address of an object store from which bundles are brought into the store, and "
        "to which a worker sends those that it trains; none by default.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    access: Access = Field(
        "auto",
        description="closed: whoever asks needs a key or a log-in; open: nobody does; auto: open "
        "while the service listens on this machine alone and there is no key and no user.",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of the server's certificate chain; with it, https alone."
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key.")
    public_url: str = Field(
        "", description="Address by which browsers reach the service, where a proxy is before it."
    )
    proxies: str = Field(
        "127.0.0.1",
        description="Addresses and networks of proxies, whose word counts for who asks; * is all.",
    )
    oidc_issuer: str = Field(
        "", description="Address of the identity provider by which users log in; none by default."
    )
    oidc_client_id: str = Field("", description="As what the service is known to the provider.")
    oidc_client_secret: Path | None = Field(
        None, description="File with the service's secret at the provider."
    )
    oidc_claim: str = Field(
        "preferred_username", description="What of the provider's word is a user's name here."
    )
    session_hours: float = Field(12.0, gt=0, description="How long a log-in lasts.")
    device: Device = Field(
        "auto", description="auto, or what must really run: cpu, cuda, tensorrt, openvino."
    )
    precision: Precision = Field(
        "fp32",
        description="fp16 lets TensorRT compute in half precision; a bundle whose "
        "golden vectors it misses is refused.",
    )
    cuda_graphs: bool = Field(
        True,
        description="On cuda, record each size of batch as a CUDA graph, which saves the time "
        "between kernels; not of a bundle that sees tiles, which cannot be recorded.",
    )
    threads: int = Field(0, ge=0, description="CPU threads of one model run; 0 is all cores.")
    promotion: Promotions = Field(
        "shadow",
        description="What a new bundle does: newest, it decides; shadow, it runs in the "
        "champion's shadow until somebody promotes it; manual, nothing. (A recipe's first bundle "
        "always decides.)",
    )
    trusted_keys: Path | None = Field(
        None,
        description="PEM file of public keys: only bundles that one of them signed are served. "
        "By default all.",
    )
    model_mb: int = Field(
        0,
        ge=0,
        description="Models that stay loaded, in MB of their files; 0 is all. Those asked for "
        "least recently are let go, and loaded again when asked for.",
    )
    scan_seconds: float = Field(2.0, gt=0, description="How often the store is looked through.")
    max_body_bytes: int = Field(32_000_000, gt=0, description="Largest request body; 413 above.")
    max_bodies_bytes: int = Field(
        128_000_000, gt=0, description="All request bodies that are not answered yet; 503 above."
    )
    head_seconds: float = Field(15.0, gt=0, description="Longest wait for a request's head.")
    body_seconds: float = Field(30.0, gt=0, description="Longest wait for a request's body; 408.")
    answer_seconds: float = Field(
        30.0, gt=0, description="Longest wait until a client takes a piece of its answer."
    )
    max_pixels: int = Field(32_000_000, gt=0, description="Largest image, from its header.")
    max_batch_images: int = Field(64, gt=0, description="Most images in one batch request.")
    max_queue: int = Field(64, gt=0, description="Images waiting for the device; 503 above.")
    max_batch: int = Field(
        0,
        ge=0,
        description="Most images in one run of the model; 0 is 8, and 1 on a CPU, where more gain "
        "nothing.",
    )
    batch_wait_ms: float = Field(
        0, ge=0, description="Longest wait of an image for others to run with it."
    )
    canary_seconds: float = Field(
        30.0, gt=0, description="How often the device must score an image that it knows."
    )
    hang_seconds: float = Field(
        20.0, gt=0, description="Longest run of the model before its device is given up."
    )
    keep_ok_days: float = Field(
        0, ge=0, description="Days after which images of passed parts are removed; 0 is never. "
        "Rows stay, and images of labelled parts.",
    )  # fmt: skip
    keep_days: float = Field(
        0, ge=0, description="The same of parts that were rejected or sent to review."
    )
    quota_gb: float = Field(
        0, ge=0, description="Most that images and heatmaps may take; 0 is any number. The oldest "
        "passed parts' go first, then others', never labelled parts'.",
    )  # fmt: skip
    free_gb: float = Field(
        0, ge=0, description="Room that is to be left on the disk, in the same way; 0 is none."
    )
    disk_full: DiskFull = Field(
        "refuse",
        description="What becomes of images while nothing can be written: refuse, 503; answer, "
        "a verdict that says that it is not stored.",
    )
    good_parts: Path | None = Field(
        None,
        description="Directory of folders by recipe: the good parts that it was fitted on, for "
        "its retraining.",
    )
    cache: Path | None = Field(
        None, description="Directory of features that retrainings keep; by default in the data."
    )
    shifts: str = Field(
        "06:00,14:00,22:00", description="When shifts begin, by the clock of the machine."
    )
    deadline_ms: int = Field(10_000, gt=0, description="Longest wait for a verdict; 504 after.")

    @property
    def database_url(self) -> str:
        """The URL in force."""
        return self.database or f"sqlite:///{(self.data / 'kizu.sqlite3').absolute()}"
