"""When the files of an inspection were removed, and what finds those that may be."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it."""
    op.add_column(
        "inspections", sa.Column("files_removed_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.create_index(
        "ix_inspections_removable", "inspections", ["files_removed_at", "verdict", "created_at"]
    )
    op.create_index(op.f("ix_inspections_heatmap_sha256"), "inspections", ["heatmap_sha256"])
