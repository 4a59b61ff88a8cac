"""Rows that go by their age are found by it."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = ("answers", "audit", "predictions")


def upgrade() -> None:
    """Forward."""
    for table in TABLES:
        op.create_index(f"ix_{table}_created_at", table, ["created_at"])


def downgrade() -> None:
    """Back."""
    for table in TABLES:
        op.drop_index(f"ix_{table}_created_at", table)
