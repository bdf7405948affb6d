"""The tables. Rows are appended and never changed, but for when an inspection's files were removed,
and for those of work that is not done yet:
what waits for review, masks that are being drawn, and trainings that run; and for who may come in.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    TypeDecorator,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, in UTC; SQLite, which knows no zones, gives it back with its own."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Constraint names are fixed, so that a migration can name them on any database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own form
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


class Inspection(Base):
    """One image in, one stored result."""

    __tablename__ = "inspections"
    __table_args__ = (
        Index(None, "recipe", "created_at"),
        Index(None, "created_at", "id"),
        Index("ix_inspections_removable", "files_removed_at", "verdict", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    # In which order they were entered, which a clock that was set back does not tell. Those of
    # before there were numbers have none.
    number: Mapped[int | None] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), index=True
    )
    created_at: Mapped[datetime]
    recipe: Mapped[str]
    part_id: Mapped[str | None] = mapped_column(index=True)
    lot: Mapped[str | None] = mapped_column(index=True)
    camera: Mapped[str | None]
    simulated: Mapped[bool]
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    request_sha256: Mapped[str]

    image_sha256: Mapped[str] = mapped_column(index=True)
    image_type: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    pixels: Mapped[dict[str, Any]]

    bundle_version: Mapped[int]
    bundle_digest: Mapped[str]
    device: Mapped[str]
    verdict: Mapped[str]
    score: Mapped[float]
    percentile: Mapped[float]
    review_threshold: Mapped[float]
    ng_threshold: Mapped[float]
    recipe_revision: Mapped[int | None]
    regions: Mapped[list[Any]]
    brightness: Mapped[float | None]
    focus: Mapped[float | None]
    saturated: Mapped[float | None]
    heatmap_sha256: Mapped[str] = mapped_column(index=True)
    heatmap_low: Mapped[float]
    heatmap_high: Mapped[float]
    processing_times: Mapped[dict[str, Any]]
    # When image and heatmap were removed to make room; the row stays.
    files_removed_at: Mapped[datetime | None]

    # No column: false of a result that a full disk had no room for, which is nowhere but here.
    stored = True


class Feedback(Base):
    """One operator's word on one inspection; the newest counts, all are kept.

    A row that `withdraws` another one takes it back; neither of them counts.
    """

    __tablename__ = "feedback"

    # What is newest is decided by the database's count, not by a clock that may jump.
    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    inspection_id: Mapped[str] = mapped_column(ForeignKey("inspections.id"), index=True)
    verdict: Mapped[str]
    withdraws: Mapped[str | None] = mapped_column(index=True)
    defect_class: Mapped[str | None]
    mask_sha256: Mapped[str | None]
    boxes: Mapped[list[Any]]
    operator: Mapped[str]
    desk: Mapped[str]
    comment: Mapped[str]
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    request_sha256: Mapped[str]


class RecipeRevision(Base):
    """What people say of a recipe, from a moment on."""

    __tablename__ = "recipe_revisions"

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    recipe: Mapped[str] = mapped_column(index=True)
    settings: Mapped[dict[str, Any]]
    by: Mapped[str]
    reason: Mapped[str]


class ReviewItem(Base):
    """An inspection that a person is to look at; gone once it is labelled.

    The larger its priority, the sooner. While it is claimed, nobody else is given it.
    """

    __tablename__ = "review_items"
    __table_args__ = (
        Index(None, "desk", "priority", "inspection_id"),
        Index(None, "desk", "recipe", "priority", "inspection_id"),
    )

    inspection_id: Mapped[str] = mapped_column(ForeignKey("inspections.id"), primary_key=True)
    recipe: Mapped[str]
    desk: Mapped[str]
    priority: Mapped[float]
    reason: Mapped[str]
    claimed_by: Mapped[str | None]
    claimed_until: Mapped[datetime | None]


class MaskDraft(Base):
    """A mask that an operator is drawing, kept until it goes into a label."""

    __tablename__ = "mask_drafts"

    inspection_id: Mapped[str] = mapped_column(ForeignKey("inspections.id"), primary_key=True)
    operator: Mapped[str] = mapped_column(primary_key=True)
    updated_at: Mapped[datetime]
    png: Mapped[bytes]


class ThresholdRevision(Base):
    """Thresholds of one bundle from a moment on. Raw scores of two bundles do not compare."""

    __tablename__ = "threshold_revisions"
    __table_args__ = (Index(None, "recipe", "bundle_digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    recipe: Mapped[str]
    bundle_version: Mapped[int]
    bundle_digest: Mapped[str]
    review: Mapped[float]
    ng: Mapped[float]
    by: Mapped[str]
    reason: Mapped[str]


class Promotion(Base):
    """Which bundle decides for a recipe, from a moment on.

    `newest_version` is the newest that the store held then: whoever decided has passed over it.
    """

    __tablename__ = "promotions"

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    recipe: Mapped[str] = mapped_column(index=True)
    bundle_version: Mapped[int]
    bundle_digest: Mapped[str]
    newest_version: Mapped[int]
    by: Mapped[str]
    reason: Mapped[str]


class Candidacy(Base):
    """Which bundle runs in the shadow of a recipe's champion, from a moment on; or none."""

    __tablename__ = "candidacies"

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    recipe: Mapped[str] = mapped_column(index=True)
    bundle_version: Mapped[int | None]
    bundle_digest: Mapped[str | None]
    by: Mapped[str]
    reason: Mapped[str]


class ShadowResult(Base):
    """What a candidate would have said of an inspection, beside what the champion said."""

    __tablename__ = "shadow_results"
    __table_args__ = (
        Index(
            "ix_shadow_results_agreement",  # PostgreSQL cuts names of more than 63 letters
            "bundle_digest", "champion_digest", "champion_verdict", "verdict", "created_at",
        ),
    )  # fmt: skip

    inspection_id: Mapped[str] = mapped_column(ForeignKey("inspections.id"), primary_key=True)
    bundle_digest: Mapped[str] = mapped_column(primary_key=True)
    bundle_version: Mapped[int]
    created_at: Mapped[datetime]
    recipe: Mapped[str]
    score: Mapped[float]
    verdict: Mapped[str]
    champion_digest: Mapped[str]
    champion_verdict: Mapped[str]


class Training(Base):
    """A retraining that somebody asked for, from `queued` to one of its ends."""

    __tablename__ = "trainings"
    __table_args__ = (Index(None, "state", "created_at"), Index(None, "recipe", "created_at"))

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    recipe: Mapped[str]
    by: Mapped[str]
    reason: Mapped[str]
    labels: Mapped[dict[str, Any]]
    retry_of: Mapped[str | None]
    champion_version: Mapped[int]

    state: Mapped[str]
    cancelled_by: Mapped[str | None]
    attempts: Mapped[int]
    worker: Mapped[str | None]
    seen_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    step: Mapped[str]
    done: Mapped[int]
    total: Mapped[int]
    step_began_at: Mapped[datetime | None]
    peak_mb: Mapped[float]
    snapshot: Mapped[str | None]
    bundle_version: Mapped[int | None]
    report_sha256: Mapped[str | None]
    message: Mapped[str]
    log: Mapped[str]


class Worker(Base):
    """A process that carries out trainings, and when it was last alive."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime]


class User(Base):
    """Somebody who logs in, and what they may; without a password by the identity provider."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    password: Mapped[str]
    created_at: Mapped[datetime]


class LogIn(Base):
    """A browser in which a user has logged in."""

    __tablename__ = "log_ins"

    digest: Mapped[str] = mapped_column(primary_key=True)
    user_name: Mapped[str] = mapped_column(ForeignKey("users.name"), index=True)
    ends_at: Mapped[datetime]


class ApiKey(Base):
    """What a camera or another program shows in the place of a password. Never removed."""

    __tablename__ = "api_keys"

    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    role: Mapped[str]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    per_second: Mapped[float | None]
    max_bytes: Mapped[int | None]


class AuditEntry(Base):
    """Who changed what. `digest` is of all else in the row, and `previous` that of the row before:
    to change one entry is to change all that follow. The database lets none be changed."""

    __tablename__ = "audit_entries"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[datetime]
    name: Mapped[str]
    kind: Mapped[str]
    role: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    details: Mapped[str]
    previous: Mapped[str]
    digest: Mapped[str]
