"""Increments remember the checkpoint they would go on from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("increments", sa.Column("checkpoint", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Back."""
    with op.batch_alter_table("increments", schema=None) as batch_op:
        batch_op.drop_column("checkpoint")
