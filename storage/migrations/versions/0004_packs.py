"""Images remember the pack their file is in; those of before have a blob of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("images", sa.Column("pack", sa.String(64), nullable=True))
    op.add_column("images", sa.Column("offset", sa.BigInteger(), nullable=True))
    op.create_index("ix_images_pack", "images", ["pack"])
    op.create_table(
        "packs",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_packs"),
    )


def downgrade() -> None:
    """Back; files in packs cannot be read by what came before."""
    op.drop_table("packs")
    op.drop_index("ix_images_pack", "images")
    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.drop_column("offset")
        batch_op.drop_column("pack")
