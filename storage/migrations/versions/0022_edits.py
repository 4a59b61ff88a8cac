"""Versions can be made by edits: without a batch, with classes dropped or merged."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_increments = sa.table("increments", sa.column("batch_id"))


def upgrade() -> None:
    """Forward."""
    with op.batch_alter_table("increments") as table:
        table.alter_column("batch_id", existing_type=sa.String(32), nullable=True)
        table.add_column(sa.Column("edit", sa.JSON()))
    op.add_column("versions", sa.Column("edit", sa.JSON()))
    op.add_column("versions", sa.Column("merged", sa.JSON()))


def downgrade() -> None:
    """Back; increments without a batch go, as earlier releases cannot read them."""
    op.drop_column("versions", "merged")
    op.drop_column("versions", "edit")
    op.execute(sa.delete(_increments).where(_increments.c.batch_id.is_(None)))
    with op.batch_alter_table("increments") as table:
        table.drop_column("edit")
        table.alter_column("batch_id", existing_type=sa.String(32), nullable=False)
