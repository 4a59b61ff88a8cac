"""The bad files of a batch have a table of their own, and remembered answers name only the first of them."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_SHOWN = 100
_batches = sa.table("batches", sa.column("id"), sa.column("rejects", sa.JSON()), sa.column("reject_count"))
_rejects = sa.table("rejects", sa.column("batch_id"), sa.column("position"), sa.column("file"), sa.column("reason"))
_answers = sa.table("answers", sa.column("model_id"), sa.column("key"), sa.column("document", sa.JSON()))


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "rejects",
        sa.Column("batch_id", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_rejects_batch_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "position", name="pk_rejects"),
    )
    op.add_column("batches", sa.Column("reject_count", sa.Integer(), nullable=False, server_default="0"))
    connection = op.get_bind()
    for batch_id in connection.scalars(sa.select(_batches.c.id)).all():
        this = _batches.c.id == batch_id
        found: list[dict[str, Any]] = connection.scalar(sa.select(_batches.c.rejects).where(this)) or []
        if found:
            rows = [{"batch_id": batch_id, "position": place} | one for place, one in enumerate(found)]
            connection.execute(sa.insert(_rejects), rows)
            connection.execute(sa.update(_batches).where(this).values(reject_count=len(found)))
    for row in connection.execute(sa.select(_answers)).mappings().all():
        if "rejects" in (document := row["document"]):
            found = document["rejects"]
            shortened = document | {"rejects": found[:_SHOWN], "reject_count": len(found)}
            same = (_answers.c.model_id == row["model_id"]) & (_answers.c.key == row["key"])
            connection.execute(sa.update(_answers).where(same).values(document=shortened))
    with op.batch_alter_table("batches") as table:
        table.drop_column("rejects")


def downgrade() -> None:
    """Back."""
    op.add_column("batches", sa.Column("rejects", sa.JSON(), nullable=False, server_default="[]"))
    connection = op.get_bind()
    for batch_id in connection.scalars(sa.select(_batches.c.id).where(_batches.c.reject_count > 0)).all():
        query = sa.select(_rejects.c.file, _rejects.c.reason).where(_rejects.c.batch_id == batch_id)
        found = [dict(row) for row in connection.execute(query.order_by(_rejects.c.position)).mappings()]
        connection.execute(sa.update(_batches).where(_batches.c.id == batch_id).values(rejects=found))
    with op.batch_alter_table("batches") as table:
        table.drop_column("reject_count")
        table.alter_column("rejects", server_default=None)
    op.drop_table("rejects")
