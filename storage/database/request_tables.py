"""Tables of requests: keys, the audit log, remembered answers."""

from sqlalchemy import JSON, Column, Float, ForeignKey, Integer, String, Table, Text

from storage.database.columns import Digest, Identifier, Moment, Name, Sequence
from storage.database.metadata import metadata

keys = Table(
    "keys",
    metadata,
    Column("id", Identifier, primary_key=True),
    Column("name", Name, nullable=False),
    Column("digest", Digest, nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("model_id", Identifier, ForeignKey("models.id", ondelete="CASCADE")),
    Column("rate", Float),
    Column("created_at", Moment, nullable=False),
    Column("revoked_at", Moment),
)

audit = Table(  # without foreign keys: an entry stays when the key that it names is deleted
    "audit",
    metadata,
    Column("number", Sequence, primary_key=True, autoincrement=True),
    Column("created_at", Moment, nullable=False, index=True),
    Column("key_id", Identifier),
    Column("key_name", Name, nullable=False),
    Column("client", String(100), nullable=False),
    Column("action", String(200), nullable=False),
    Column("path", Text, nullable=False),
    Column("status", Integer),
    Column("change", JSON(none_as_null=True)),  # null in rows of earlier releases
    sqlite_autoincrement=True,
)

answers = Table(
    "answers",
    metadata,
    Column("model_id", Identifier, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Name, primary_key=True),
    Column("fingerprint", Digest, nullable=False),
    Column("document", JSON, nullable=False),
    Column("created_at", Moment, nullable=False, index=True),
)
