"""Images remember where their packed copy is; those of before have none yet."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("images", sa.Column("shard", sa.String(64), nullable=True))
    op.add_column("images", sa.Column("row", sa.Integer(), nullable=True))
    op.create_index("ix_images_shard", "images", ["shard"])


def downgrade() -> None:
    """Back."""
    op.drop_index("ix_images_shard", "images")
    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.drop_column("row")
        batch_op.drop_column("shard")
