"""The metrics of each version: one JSON document, in the shape `trainer.evaluation.metrics` documents."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from storage.database.tables import metrics
from storage.domain import Json, Version


def add(connection: Connection, *, model_id: str, version: int, document: Mapping[str, Any]) -> None:
    """Write the document of a new version."""
    connection.execute(insert(metrics).values(model_id=model_id, version=version, document=dict(document)))


def of_versions(connection: Connection, line: Sequence[Version]) -> tuple[Json, ...]:
    """The documents of some versions of one model, in the order asked for."""
    if not line:
        return ()
    query = (
        select(metrics.c.version, metrics.c.document)
        .where(metrics.c.model_id == line[0].model_id)
        .where(metrics.c.version.in_([version.number for version in line]))
    )
    documents: dict[int, Json] = {row.version: row.document for row in connection.execute(query)}
    return tuple(documents[version.number] for version in line)
