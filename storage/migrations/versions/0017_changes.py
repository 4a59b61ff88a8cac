"""Entries of the audit log say what was changed."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("audit", sa.Column("change", sa.JSON()))


def downgrade() -> None:
    """Back."""
    op.drop_column("audit", "change")
