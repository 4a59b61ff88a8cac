"""Images of a batch are listed in the order of their ids."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.create_index("ix_images_batch_id_id", "images", ["batch_id", "id"])


def downgrade() -> None:
    """Back."""
    op.drop_index("ix_images_batch_id_id", "images")
