"""The tables, in SQLAlchemy Core; `storage.migrations` creates and upgrades them."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from storage.database import prediction_tables  # noqa: F401 - its tables are in the metadata, too
from storage.database.columns import Digest, Identifier, Moment, Name, Sequence
from storage.database.metadata import metadata, of_model
from storage.database.request_tables import answers, audit, keys

__all__ = [
    "answers",
    "attempts",
    "audit",
    "batches",
    "events",
    "exemplars",
    "exports",
    "images",
    "increments",
    "keys",
    "metadata",
    "metrics",
    "models",
    "packs",
    "promotions",
    "rejects",
    "relabels",
    "released",
    "versions",
]

_IS_RUNNING = text("status = 'running'")


models = Table(
    "models",
    metadata,
    Column("id", Identifier, primary_key=True),
    Column("name", Name, nullable=False, unique=True),
    Column("network", String(100), nullable=False),
    Column("image_size", Integer, nullable=False),
    Column("channels", Integer, nullable=False),
    Column("strategy", String(100), nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("memory", JSON(none_as_null=True)),
    Column("retention", String(20), nullable=False),
    Column("keep_predictions", String(20), nullable=False, default="none", server_default="none"),
    Column("created_at", Moment, nullable=False),
    Column("head", Integer),
    Column("current", Integer),
    Column("previous", Integer),
    Column("current_revision", Integer, nullable=False, default=0),
    Column("last_version", Integer, nullable=False, default=0),
    Column("names", JSON(none_as_null=True)),  # by label, of renamed classes; null: none was renamed
)

batches = Table(
    "batches",
    metadata,
    Column("id", Identifier, primary_key=True),
    of_model(),
    Column("status", String(20), nullable=False),
    Column("archive", Digest),
    Column("archive_kind", String(10)),
    Column("fingerprint", Digest),
    Column("classes", JSON, nullable=False),
    Column("reject_count", Integer, nullable=False, default=0, server_default="0"),
    Column("ignored", JSON(none_as_null=True)),  # in rows of earlier releases, this and "notes" are null
    Column("notes", JSON(none_as_null=True)),
    Column("labels", JSON(none_as_null=True)),  # by name in the archive; null: every name is the label
    Column("digest", Digest),
    Column("created_at", Moment, nullable=False),
    Index(None, "model_id", "fingerprint"),
)

rejects = Table(
    "rejects",
    metadata,
    Column("batch_id", Identifier, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),  # within the batch, from 0
    Column("file", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

images = Table(
    "images",
    metadata,
    Column("id", Identifier, primary_key=True),
    Column("batch_id", Identifier, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    Column("label", Name, nullable=False),
    Column("filename", Text, nullable=False),
    Column("digest", Digest, nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("split", String(10)),
    Column("shard", Digest, index=True),
    Column("row", Integer),
    Column("pack", Digest, index=True),
    Column("offset", BigInteger),
    Index(None, "batch_id", "label"),
    Index(None, "batch_id", "id"),
)

relabels = Table(
    "relabels",
    metadata,
    Column("number", Sequence, primary_key=True, autoincrement=True),
    of_model(),
    Column("image_id", Identifier, ForeignKey("images.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("before", Name, nullable=False),
    Column("after", Name, nullable=False),
    Column("split", String(10)),
    Column("versions", JSON, nullable=False),
    Column("key_name", Name, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index(None, "model_id", "number"),
    sqlite_autoincrement=True,
)

packs = Table(
    "packs",
    metadata,
    Column("digest", Digest, primary_key=True),
    Column("size", BigInteger, nullable=False),  # bytes of all its files, including those of deleted images
)

increments = Table(
    "increments",
    metadata,
    Column("arrival", Sequence, primary_key=True, autoincrement=True),
    Column("id", Identifier, nullable=False, unique=True),
    of_model(),
    Column("batch_id", Identifier, ForeignKey("batches.id", ondelete="CASCADE"), index=True),  # null for an edit
    Column("status", String(20), nullable=False, index=True),
    Column("strategy", String(100), nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("promote", String(20), nullable=False),
    Column("known_classes", String(20), nullable=False),
    Column("idempotency_key", Name),
    Column("asked", Digest),  # fingerprint of the request with the key; null in rows of earlier releases
    Column("attempt", Integer, nullable=False, default=0),
    Column("crashes", Integer, nullable=False, default=0),
    Column("checkpoint", JSON(none_as_null=True)),
    Column("lease_expires_at", Moment),
    Column("worker", Name),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("parent", Integer),
    Column("version", Integer),
    Column("promoted", Boolean),
    Column("note", Text),
    Column("progress", JSON(none_as_null=True)),
    Column("error", Text),
    Column("unshown", JSON(none_as_null=True)),  # null in rows of earlier releases
    Column("edit", JSON(none_as_null=True)),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    UniqueConstraint("model_id", "idempotency_key"),
    Index(
        "ix_increments_one_running_per_model",
        "model_id",
        unique=True,
        sqlite_where=_IS_RUNNING,
        postgresql_where=_IS_RUNNING,
    ),
    sqlite_autoincrement=True,
)

attempts = Table(
    "attempts",
    metadata,
    Column("increment_id", Identifier, ForeignKey("increments.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("worker", Name, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Column("outcome", String(20)),
    Column("reason", Text),
)

events = Table(
    "events",
    metadata,
    Column("increment_id", Identifier, ForeignKey("increments.id", ondelete="CASCADE"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("model_id", Identifier, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("parent", Integer),
    Column("increment_id", Identifier, nullable=False),
    Column("tasks", JSON, nullable=False),
    Column("strategy", String(100), nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("files", JSON, nullable=False),
    Column("data_digest", Digest, nullable=False),
    Column("code_version", String(100), nullable=False),
    Column("seconds", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("edit", JSON(none_as_null=True)),
    Column("merged", JSON(none_as_null=True)),
    Column("deleted_at", Moment),
)

promotions = Table(
    "promotions",
    metadata,
    Column("model_id", Identifier, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("previous", Integer),
    Column("key_id", Identifier),  # no foreign key: the record stays when the key is deleted
    Column("key_name", Name),
    Column("increment_id", Identifier),
    Column("reason", Text),
    Column("created_at", Moment),  # null in rows that stand for those of earlier releases
)

_version = ("versions.model_id", "versions.number")

metrics = Table(
    "metrics",
    metadata,
    Column("model_id", Identifier, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("document", JSON, nullable=False),
    ForeignKeyConstraint(["model_id", "version"], _version, ondelete="CASCADE"),
)

exemplars = Table(
    "exemplars",
    metadata,
    Column("model_id", Identifier, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("image_id", Identifier, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("rank", Integer, nullable=False),  # within its class, from 0, most wanted first
    ForeignKeyConstraint(["model_id", "version"], _version, ondelete="CASCADE"),
)

released = Table(  # blobs to be deleted, unless something refers to them
    "released",
    metadata,
    Column("digest", Digest, primary_key=True),
    Column("failures", Integer, nullable=False, default=0, server_default="0"),  # failed deletions in a row
    Column("retry_at", Moment),  # not tried again before this time
)

exports = Table(  # files of versions that somebody asked for, made by a worker
    "exports",
    metadata,
    Column("model_id", Identifier, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("file", String(100), primary_key=True),
    Column("attempts", Integer, nullable=False, default=0),
    Column("lease_expires_at", Moment),  # a process works on it until then
    Column("agreement", JSON(none_as_null=True)),  # null until the file is made
    Column("error", Text),  # why there will be none
    Column("created_at", Moment, nullable=False, index=True),
    ForeignKeyConstraint(["model_id", "version"], _version, ondelete="CASCADE"),
)
