"""An increment keeps what was asked for under its Idempotency-Key."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("increments", sa.Column("asked", sa.String(64)))


def downgrade() -> None:
    """Back."""
    with op.batch_alter_table("increments") as table:
        table.drop_column("asked")
