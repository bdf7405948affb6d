"""In which order inspections were entered: a clock may be set back."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it. Older ones are left without: all that come later are after them."""
    op.add_column("inspections", sa.Column("number", sa.Integer(), nullable=True))
    op.create_index(op.f("ix_inspections_number"), "inspections", ["number"])
