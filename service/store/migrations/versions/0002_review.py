"""The review queue, drafts of masks, lots of parts; labels by engineers, and those taken back."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.add_column("inspections", sa.Column("lot", sa.String(), nullable=True))
    op.create_index(op.f("ix_inspections_lot"), "inspections", ["lot"], unique=False)
    op.add_column(
        "feedback", sa.Column("desk", sa.String(), nullable=False, server_default="operator")
    )
    op.add_column("feedback", sa.Column("withdraws", sa.String(), nullable=True))
    op.create_index(op.f("ix_feedback_withdraws"), "feedback", ["withdraws"], unique=False)
    op.create_table(
        "review_items",
        sa.Column("inspection_id", sa.String(), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("desk", sa.String(), nullable=False),
        sa.Column("priority", sa.Double(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("claimed_by", sa.String(), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["inspection_id"], ["inspections.id"], name=op.f("fk_review_items_inspection_id")
        ),
        sa.PrimaryKeyConstraint("inspection_id", name=op.f("pk_review_items")),
    )
    for columns in (
        ["desk", "priority", "inspection_id"],
        ["desk", "recipe", "priority", "inspection_id"],
    ):
        op.create_index(
            op.f(f"ix_review_items_{'_'.join(columns)}"), "review_items", columns, unique=False
        )
    op.create_table(
        "mask_drafts",
        sa.Column("inspection_id", sa.String(), nullable=False),
        sa.Column("operator", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("png", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["inspection_id"], ["inspections.id"], name=op.f("fk_mask_drafts_inspection_id")
        ),
        sa.PrimaryKeyConstraint("inspection_id", "operator", name=op.f("pk_mask_drafts")),
    )
