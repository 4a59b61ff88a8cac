"""A prediction's record has the digests of its images and the caller's reference."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("predictions", sa.Column("digests", sa.JSON()))
    op.add_column("predictions", sa.Column("reference", sa.String(200)))
    op.create_index("ix_predictions_model_id_reference", "predictions", ["model_id", "reference"])


def downgrade() -> None:
    """Back."""
    op.drop_index("ix_predictions_model_id_reference", "predictions")
    with op.batch_alter_table("predictions") as table:
        table.drop_column("reference")
        table.drop_column("digests")
