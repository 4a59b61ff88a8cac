"""Versions can be made by edits: without a batch, with classes dropped or merged."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_increments = sa.table("increments", sa.column("batch_id"))
_sequences = sa.table("sqlite_sequence", sa.column("name"), sa.column("seq"))
_own = _sequences.c.name == "increments"


def upgrade() -> None:
    """Forward."""
    last = _last_arrival()
    with op.batch_alter_table("increments", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.alter_column("batch_id", existing_type=sa.String(32), nullable=True)
        table.add_column(sa.Column("edit", sa.JSON()))
    _count_on_from(last)
    op.add_column("versions", sa.Column("edit", sa.JSON()))
    op.add_column("versions", sa.Column("merged", sa.JSON()))


def downgrade() -> None:
    """Back; increments without a batch go, as earlier releases cannot read them."""
    op.drop_column("versions", "merged")
    op.drop_column("versions", "edit")
    op.execute(sa.delete(_increments).where(_increments.c.batch_id.is_(None)))
    last = _last_arrival()
    with op.batch_alter_table("increments", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.drop_column("edit")
        table.alter_column("batch_id", existing_type=sa.String(32), nullable=False)
    _count_on_from(last)


def _last_arrival() -> int | None:
    """The highest number that SQLite has given, perhaps to a row that is gone; None for another database."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return None
    return connection.scalar(sa.select(_sequences.c.seq).where(_own))


def _count_on_from(last: int | None) -> None:
    """Let SQLite give no number again, although it has rebuilt the table: the new one knows its own rows alone."""
    if last is not None:
        op.execute(sa.delete(_sequences).where(_own))
        op.execute(sa.insert(_sequences).values(name="increments", seq=last))
