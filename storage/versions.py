"""The versions: immutable trained networks and their line of ancestors."""

from sqlalchemy import Connection, delete, insert, select, update

from storage import rows
from storage.domain import Model, Page, Version, now
from storage.errors import VersionInUse, VersionNotFound
from storage.tables import exemplars, versions


def add(connection: Connection, version: Version) -> None:
    """Write a new version; `storage.publication` decides whether and under which number."""
    connection.execute(
        insert(versions).values(
            model_id=version.model_id,
            number=version.number,
            parent=version.parent,
            increment_id=version.increment_id,
            tasks=[list(task) for task in version.tasks],
            strategy=version.strategy,
            recipe=dict(version.recipe),
            files={name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in version.files.items()},
            data_digest=version.data_digest,
            code_version=version.code_version,
            seconds=dict(version.seconds),
            created_at=version.created_at,
        )
    )


def get(connection: Connection, model: Model, number: int) -> Version:
    """One version of a model; raises `VersionNotFound`, also for a deleted one."""
    version = find(connection, model.id, number)
    if version is None or version.deleted_at is not None:
        raise VersionNotFound(
            f"Model {model.name!r} has no version {number}: GET /v1/models/{model.name}/versions lists them."
        )
    return version


def find(connection: Connection, model_id: str, number: int) -> Version | None:
    """One version of a model, deleted or not; None if there never was one of that number."""
    query = select(versions).where(versions.c.model_id == model_id).where(versions.c.number == number)
    row = connection.execute(query).mappings().one_or_none()
    return rows.version(row) if row is not None else None


def page(connection: Connection, model: Model, *, limit: int, cursor: str | None) -> Page[Version]:
    """Versions of a model in the order of their numbers."""
    query = select(versions).where(versions.c.model_id == model.id).where(versions.c.deleted_at.is_(None))
    return rows.page(connection, query, key=versions.c.number, read=rows.version, limit=limit, cursor=cursor)


def lineage(connection: Connection, model: Model, number: int | None) -> tuple[Version, ...]:
    """A version's line of ancestors from the first task on, itself last, deleted ones included; empty for None."""
    query = select(versions).where(versions.c.model_id == model.id)
    by_number = {row["number"]: rows.version(row) for row in connection.execute(query).mappings()}
    line: list[Version] = []
    while number is not None:
        line.append(by_number[number])
        number = line[-1].parent
    return tuple(reversed(line))


def remove(connection: Connection, model: Model, number: int) -> Version:
    """Delete a version unless it is current or head; returns it with the files that nobody needs any more.

    Its row stays, marked, and so do its metrics: the accuracy matrix of its descendants needs them.
    """
    version = get(connection, model, number)
    role = "current" if model.current == number else "head" if model.head == number else None
    if role is not None:
        raise VersionInUse(f"Version {number} of {model.name!r} is {role}: promote another one first.")
    this = (versions.c.model_id == model.id) & (versions.c.number == number)
    connection.execute(update(versions).where(this).values(deleted_at=now()))
    connection.execute(delete(exemplars).where(exemplars.c.model_id == model.id).where(exemplars.c.version == number))
    return version


def files_in_use(connection: Connection) -> frozenset[str]:
    """Digests of the files of every version that is not deleted."""
    columns = connection.scalars(select(versions.c.files).where(versions.c.deleted_at.is_(None)))
    return frozenset(file["sha256"] for files in columns for file in files.values())
