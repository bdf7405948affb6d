"""Numbers of inspections that a plant does not come to the end of: 2³¹ are three years of twenty
images a second. SQLite's have 64 bits anyhow."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """On PostgreSQL the table is written anew, which takes a minute for some ten million rows."""
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column(
            "inspections", "number", type_=sa.BigInteger(), existing_type=sa.Integer(),
            existing_nullable=True,
        )  # fmt: skip
