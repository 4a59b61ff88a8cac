"""An increment remembers which old classes it was sent no image of."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("increments", sa.Column("unshown", sa.JSON()))


def downgrade() -> None:
    """Back."""
    op.drop_column("increments", "unshown")
