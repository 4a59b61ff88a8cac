"""The tables of what was predicted, in SQLAlchemy Core."""

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Integer, Table

from storage.database.columns import Digest, Identifier, Moment, Name, Sequence
from storage.database.metadata import metadata, of_model

predictions = Table(
    "predictions",
    metadata,
    Column("number", Sequence, primary_key=True, autoincrement=True),
    Column("id", Identifier, nullable=False, unique=True),
    of_model(),
    Column("version", Integer, nullable=False),
    Column("predictions", JSON, nullable=False),
    Column("created_at", Moment, nullable=False, index=True),
    Column("digests", JSON(none_as_null=True)),  # null in rows of earlier releases
    Column("reference", Name),
    Index(None, "model_id", "number"),
    Index(None, "model_id", "reference"),
    sqlite_autoincrement=True,
)

kept = Table(  # images of predictions
    "kept",
    metadata,
    Column("prediction_id", Identifier, ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    of_model(),
    Column("digest", Digest, nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Moment, nullable=False, index=True),
    Index(None, "model_id", "created_at", "size"),  # with the size, so that the bytes are added up from the index alone
)
