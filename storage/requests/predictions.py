"""The prediction records: what was answered, when, and by which version."""

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from storage.database import pages, rows
from storage.database.prediction_tables import predictions
from storage.domain import Model, Page, Prediction
from storage.errors import PredictionNotFound

_RECORD = [column for column in predictions.c if column is not predictions.c.number]


def add(connection: Connection, records: Sequence[Prediction]) -> None:
    """Write some records at once."""
    if not records:
        return
    connection.execute(
        insert(predictions),
        [
            {
                "id": record.id,
                "model_id": record.model_id,
                "version": record.version,
                "predictions": [[list(ranked) for ranked in one] for one in record.predictions],
                "created_at": record.created_at,
                "digests": list(record.digests) if record.digests is not None else None,
                "reference": record.reference,
            }
            for record in records
        ],
    )


def get(connection: Connection, prediction_id: str) -> Prediction:
    """The record of that id; raises `PredictionNotFound`."""
    row = connection.execute(select(*_RECORD).where(predictions.c.id == prediction_id)).mappings().one_or_none()
    if row is None:
        raise PredictionNotFound(f"There is no prediction {prediction_id!r} on record.")
    return rows.prediction(row)


def page(
    connection: Connection, model: Model, *, limit: int, cursor: str | None, reference: str | None = None
) -> Page[Prediction]:
    """Records of a model, newest first; with ``reference``, of the requests that bore it."""
    query = select(*_RECORD).where(predictions.c.model_id == model.id)
    if reference is not None:
        query = query.where(predictions.c.reference == reference)
    key = predictions.c.number
    return pages.page(connection, query, key=key, read=rows.prediction, limit=limit, cursor=cursor, descending=True)
