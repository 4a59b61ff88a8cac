"""What all tables are part of, and the column that most of them have."""

from sqlalchemy import Column, ForeignKey, MetaData

from storage.database.columns import Identifier

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def of_model() -> Column[str]:
    """A column that names the model to which a row belongs; the row goes with the model."""
    return Column("model_id", Identifier, ForeignKey("models.id", ondelete="CASCADE"), nullable=False)
