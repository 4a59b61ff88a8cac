"""Images can be moved to another class; which versions had learned from them is on record."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "relabels",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("model_id", sa.String(32), nullable=False),
        sa.Column("image_id", sa.String(32), nullable=False),
        sa.Column("before", sa.String(200), nullable=False),
        sa.Column("after", sa.String(200), nullable=False),
        sa.Column("split", sa.String(10)),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("key_name", sa.String(200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_relabels_model_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_relabels_image_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number", name="pk_relabels"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_relabels_image_id", "relabels", ["image_id"])
    op.create_index("ix_relabels_model_id_number", "relabels", ["model_id", "number"])


def downgrade() -> None:
    """Back."""
    op.drop_table("relabels")
