"""Trainings that the console asks for, and the workers that carry them out."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.create_table(
        "trainings",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("retry_of", sa.String(), nullable=True),
        sa.Column("champion_version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("cancelled_by", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("step_began_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("peak_mb", sa.Double(), nullable=False),
        sa.Column("snapshot", sa.String(), nullable=True),
        sa.Column("bundle_version", sa.Integer(), nullable=True),
        sa.Column("report_sha256", sa.String(), nullable=True),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("log", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trainings")),
    )
    op.create_index(
        op.f("ix_trainings_state_created_at"), "trainings", ["state", "created_at"], unique=False
    )
    op.create_index(
        op.f("ix_trainings_recipe_created_at"), "trainings", ["recipe", "created_at"], unique=False
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
