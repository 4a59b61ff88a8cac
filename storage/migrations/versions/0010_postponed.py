"""Blobs that could not be deleted are tried again later."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("released", sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("released", sa.Column("retry_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Back."""
    with op.batch_alter_table("released") as table:
        table.drop_column("retry_at")
        table.drop_column("failures")
