"""Candidates, and what they would have said."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.create_table(
        "candidacies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("bundle_version", sa.Integer(), nullable=True),
        sa.Column("bundle_digest", sa.String(), nullable=True),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candidacies")),
    )
    op.create_index(op.f("ix_candidacies_recipe"), "candidacies", ["recipe"], unique=False)
    op.create_table(
        "shadow_results",
        sa.Column("inspection_id", sa.String(), nullable=False),
        sa.Column("bundle_digest", sa.String(), nullable=False),
        sa.Column("bundle_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("champion_digest", sa.String(), nullable=False),
        sa.Column("champion_verdict", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["inspection_id"], ["inspections.id"], name=op.f("fk_shadow_results_inspection_id")
        ),
        sa.PrimaryKeyConstraint("inspection_id", "bundle_digest", name=op.f("pk_shadow_results")),
    )
    op.create_index(
        "ix_shadow_results_agreement",
        "shadow_results",
        ["bundle_digest", "champion_digest", "champion_verdict", "verdict", "created_at"],
        unique=False,
    )
