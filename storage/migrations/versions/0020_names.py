"""Classes can be renamed: names by label, and labels by what an archive calls its classes."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("models", sa.Column("names", sa.JSON()))
    op.add_column("batches", sa.Column("labels", sa.JSON()))


def downgrade() -> None:
    """Back."""
    op.drop_column("batches", "labels")
    op.drop_column("models", "names")
