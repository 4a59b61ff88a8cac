"""Reports: increments with their attempts, rejects and more; a page takes no more SQL statements than one report."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection, select

from storage.database import pages, rows
from storage.database.tables import attempts, batches, increments, models, versions
from storage.domain import Attempt, IncrementReport, Model, Page
from storage.material import rejects
from storage.work.increments import not_found

_VERSION = (versions.c.model_id == increments.c.model_id) & (versions.c.number == increments.c.version)
_QUERY = select(
    increments,
    models.c.name.label("model"),
    models.c.memory,
    models.c.names,
    batches.c.reject_count,
    versions.c.seconds,
).select_from(
    increments.join(models, models.c.id == increments.c.model_id)
    .outerjoin(batches, batches.c.id == increments.c.batch_id)
    .outerjoin(versions, _VERSION)
)


def get(connection: Connection, increment_id: str) -> IncrementReport:
    """The report of one increment; raises `IncrementNotFound`."""
    found = of_ids(connection, [increment_id])
    if not found:
        raise not_found(increment_id)
    return found[0]


def of_ids(connection: Connection, ids: Collection[str]) -> tuple[IncrementReport, ...]:
    """The reports of the increments of these ids that exist, in no particular order."""
    if not ids:
        return ()
    found = connection.execute(_QUERY.where(increments.c.id.in_(ids))).mappings()
    return _completed(connection, [rows.increment_report(row) for row in found])


def page(connection: Connection, model: Model, *, limit: int, cursor: str | None) -> Page[IncrementReport]:
    """Reports of a model's increments, latest arrival first."""
    query, key = _QUERY.where(increments.c.model_id == model.id), increments.c.arrival
    found = pages.page(
        connection, query, key=key, read=rows.increment_report, limit=limit, cursor=cursor, descending=True
    )
    return replace(found, items=_completed(connection, found.items))


def _completed(connection: Connection, found: Sequence[IncrementReport]) -> tuple[IncrementReport, ...]:
    """The reports with their attempts and rejects, which are rows of other tables."""
    tries = _attempts_of(connection, [one.increment.id for one in found])
    bad = rejects.first(connection, [one.increment.batch for one in found if one.reject_count])
    return tuple(
        replace(one, attempts=tries.get(one.increment.id, ()), rejects=bad.get(one.increment.batch_id or "", ()))
        for one in found
    )


def _attempts_of(connection: Connection, ids: Collection[str]) -> Mapping[str, tuple[Attempt, ...]]:
    """The attempts of some increments, by increment id, first to last."""
    query = select(attempts).where(attempts.c.increment_id.in_(ids)).order_by(attempts.c.attempt)
    tries: dict[str, list[Attempt]] = {}
    for row in connection.execute(query).mappings():
        tries.setdefault(row["increment_id"], []).append(rows.attempt(row))
    return {increment_id: tuple(attempts) for increment_id, attempts in tries.items()}
