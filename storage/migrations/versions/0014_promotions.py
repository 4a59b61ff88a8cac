"""Promotions are on record: which version, by whom, when and why.

Releases before this one kept none. For a model with a version in service, one row stands for its last promotion; who
made it, when and why is unknown.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_models = sa.table("models", *map(sa.column, ("id", "current", "previous", "current_revision")))


def upgrade() -> None:
    """Forward."""
    promotions = op.create_table(
        "promotions",
        sa.Column("model_id", sa.String(32), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("previous", sa.Integer()),
        sa.Column("key_id", sa.String(32)),
        sa.Column("key_name", sa.String(200)),
        sa.Column("increment_id", sa.String(32)),
        sa.Column("reason", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_promotions_model_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model_id", "revision", name="pk_promotions"),
    )
    known = sa.select(_models.c.id, _models.c.current_revision, _models.c.current, _models.c.previous)
    columns = ["model_id", "revision", "version", "previous"]
    op.execute(sa.insert(promotions).from_select(columns, known.where(_models.c.current.is_not(None))))


def downgrade() -> None:
    """Back."""
    op.drop_table("promotions")
