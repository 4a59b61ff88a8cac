"""What all tables share: their collection, with the rules for names of constraints, and a reference to a model."""

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
    """The column of the model that a row belongs to, and goes with."""
    return Column("model_id", Identifier, ForeignKey("models.id", ondelete="CASCADE"), nullable=False)
