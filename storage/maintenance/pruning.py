"""Deletes old rows of tables that grow with use: records of predictions and their images, answers, events, audit log.

Each transaction deletes a limited number: one that deleted millions of rows would make all other writers wait.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, Select, Table, delete, func, select, tuple_

from storage.database.clock import moment
from storage.database.engine import Database
from storage.database.prediction_tables import kept, predictions
from storage.database.tables import answers, audit, events, increments
from storage.domain import IncrementStatus
from storage.material import kept as kept_images
from storage.material import references
from storage.settings import Settings

PIECE = 1000  # rows of one transaction
PIECES = 20  # transactions for one table before other work gets its turn

_DAY = 86400.0  # seconds
_FOR_EVER = 36_500.0  # days; databases cannot count back much further
_FINAL = tuple(status for status in IncrementStatus if status.is_final)


def prune(database: Database, settings: Settings) -> bool:
    """Delete some of the rows that are older than the settings allow; returns whether all of them are deleted.

    The last event of an increment that has ended stays, so that a client can learn how it ended. All events of an
    unfinished increment stay.
    """
    tables = (
        (kept, min(settings.kept_images_days, settings.keep_predictions_days)),
        (predictions, settings.keep_predictions_days),
        (answers, settings.keep_answers_days),
        (events, settings.keep_events_days),
        (audit, settings.keep_audit_days),
    )
    done = [_prune(database, table, days) for table, days in tables if days < _FOR_EVER]
    return all(done)


def _prune(database: Database, table: Table, days: float) -> bool:
    with database.read() as connection:
        before: datetime = connection.execute(select(moment(-days * _DAY))).scalar_one()
    keys = tuple(table.primary_key)
    for _ in range(PIECES):
        with database.read() as connection:  # a read: it blocks no writer if there is nothing to delete
            old = connection.execute(_old(table, keys, before).limit(PIECE)).all()
        if not old:
            return True
        with database.write() as connection:
            _delete(connection, table, keys, old)
    return False


def _old(table: Table, keys: Sequence[Column[Any]], before: datetime) -> Select[Any]:
    """Primary keys of the rows to delete, oldest first."""
    if table is not events:
        return select(*keys).where(table.c.created_at < before).order_by(table.c.created_at)
    later = events.alias("later")
    last = select(func.max(later.c.sequence)).where(later.c.increment_id == increments.c.id).scalar_subquery()
    return (
        select(*keys)
        .join(increments, increments.c.id == events.c.increment_id)
        .where(increments.c.status.in_(_FINAL))
        .where(increments.c.finished_at < before)
        .where(events.c.sequence < last)
        .order_by(increments.c.arrival, events.c.sequence)
    )


def _delete(connection: Connection, table: Table, keys: Sequence[Column[Any]], old: Sequence[Any]) -> None:
    """Delete rows by their primary keys; an increment that was queued again meanwhile loses its old events, too."""
    for part in references.parts(old):
        if table is kept:
            kept_images.forget_images(connection, [(row.prediction_id, row.position) for row in part])
            continue
        if table is predictions:
            query = select(predictions.c.id).where(predictions.c.number.in_([row[0] for row in part]))
            ids = connection.scalars(query).all()
            kept_images.forget_predictions(connection, ids)
        named = keys[0].in_([row[0] for row in part]) if len(keys) == 1 else tuple_(*keys).in_(map(tuple, part))
        connection.execute(delete(table).where(named))
