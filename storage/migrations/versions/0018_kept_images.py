"""A model may keep the images of its predictions."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("models", sa.Column("keep_predictions", sa.String(20), nullable=False, server_default="none"))
    op.create_table(
        "kept",
        sa.Column("prediction_id", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("prediction_id", "position", name="pk_kept"),
        sa.ForeignKeyConstraint(
            ["prediction_id"], ["predictions.id"], name="fk_kept_prediction_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_kept_model_id", ondelete="CASCADE"),
    )
    op.create_index("ix_kept_digest", "kept", ["digest"])
    op.create_index("ix_kept_created_at", "kept", ["created_at"])
    op.create_index("ix_kept_model_id_created_at_size", "kept", ["model_id", "created_at", "size"])


def downgrade() -> None:
    """Back."""
    op.drop_table("kept")
    with op.batch_alter_table("models") as table:
        table.drop_column("keep_predictions")
