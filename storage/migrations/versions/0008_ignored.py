"""Batches say which files were ignored, and how their names were understood."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    with op.batch_alter_table("batches") as batch_op:
        batch_op.add_column(sa.Column("ignored", sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column("notes", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Back."""
    with op.batch_alter_table("batches") as batch_op:
        batch_op.drop_column("notes")
        batch_op.drop_column("ignored")
