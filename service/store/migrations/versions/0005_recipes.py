"""Revisions of recipes, and what light and lens made of each image."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.create_table(
        "recipe_revisions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recipe_revisions")),
    )
    op.create_index(op.f("ix_recipe_revisions_recipe"), "recipe_revisions", ["recipe"])
    op.add_column("inspections", sa.Column("recipe_revision", sa.Integer(), nullable=True))
    for name in ("brightness", "focus", "saturated"):
        op.add_column("inspections", sa.Column(name, sa.Double(), nullable=True))
