"""The versions: immutable trained networks and their line of ancestors."""

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection, delete, insert, select, update

from storage.database import locks, pages, rows
from storage.database.columns import HIGHEST_INTEGER
from storage.database.tables import exports, increments, models, versions
from storage.domain import IncrementStatus, Model, Page, StoredFile, Version, now
from storage.errors import BlobMissing, VersionInUse, VersionNotFound
from storage.material import exemplars, references


def add(connection: Connection, version: Version) -> None:
    """Write a new version; `storage.work.publication` decides whether and under which number."""
    connection.execute(
        insert(versions).values(
            model_id=version.model_id,
            number=version.number,
            parent=version.parent,
            increment_id=version.increment_id,
            tasks=[list(task) for task in version.tasks],
            strategy=version.strategy,
            recipe=dict(version.recipe),
            files=_documents(version.files),
            data_digest=version.data_digest,
            code_version=version.code_version,
            seconds=dict(version.seconds),
            created_at=version.created_at,
            edit=version.edit,
            merged=dict(version.merged) or None,
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
    if not 0 < number <= HIGHEST_INTEGER:
        return None
    query = select(versions).where(versions.c.model_id == model_id).where(versions.c.number == number)
    row = connection.execute(query).mappings().one_or_none()
    return rows.version(row) if row is not None else None


def page(connection: Connection, model: Model, *, limit: int, cursor: str | None) -> Page[Version]:
    """Versions of a model in the order of their numbers."""
    query = select(versions).where(versions.c.model_id == model.id).where(versions.c.deleted_at.is_(None))
    return pages.page(connection, query, key=versions.c.number, read=rows.version, limit=limit, cursor=cursor)


def is_there(connection: Connection, model_id: str, number: int) -> bool:
    """Whether a model has that version, and it was not deleted."""
    version = find(connection, model_id, number)
    return version is not None and version.deleted_at is None


def numbers(connection: Connection, model: Model) -> list[int]:
    """The numbers of a model's versions, ascending."""
    query = select(versions.c.number).where(versions.c.model_id == model.id).where(versions.c.deleted_at.is_(None))
    return list(connection.scalars(query.order_by(versions.c.number)))


def all_numbers(connection: Connection) -> list[tuple[Model, int | None]]:
    """Every version of every model, ordered by name and number; a model without versions appears once, with None."""
    found: dict[str, list[int | None]] = {}
    query = select(versions.c.model_id, versions.c.number).where(versions.c.deleted_at.is_(None))
    for model_id, number in connection.execute(query.order_by(versions.c.number)):
        found.setdefault(model_id, []).append(number)
    everyone = connection.execute(select(models).order_by(models.c.name)).mappings()
    return [(model, number) for model in map(rows.model, everyone) for number in found.get(model.id, [None])]


def lineage(connection: Connection, model: Model, number: int | None) -> tuple[Version, ...]:
    """The version and its ancestors, oldest first, deleted ones included; empty when ``number`` is None."""
    query = select(versions).where(versions.c.model_id == model.id)
    by_number = {row["number"]: rows.version(row) for row in connection.execute(query).mappings()}
    line: list[Version] = []
    while number is not None:
        line.append(by_number[number])
        number = line[-1].parent
    return tuple(reversed(line))


def classes_of_heads(connection: Connection, of: Sequence[Model]) -> Mapping[str, tuple[str, ...]]:
    """The classes that each model's head knows, by model id; models without a head are left out."""
    ids = [model.id for model in of if model.head is not None]
    if not ids:
        return {}
    is_head = (versions.c.model_id == models.c.id) & (versions.c.number == models.c.head)
    found = connection.execute(select(versions).join(models, is_head).where(models.c.id.in_(ids))).mappings()
    return {row["model_id"]: rows.version(row).classes for row in found}


def merged_into(connection: Connection, model: Model, label: str) -> frozenset[str]:
    """Labels of the classes that edits have merged into a class of the model's head."""
    merged = get(connection, model, model.head).merged if model.head is not None else {}
    return frozenset(former for former, held in merged.items() if held == label)


def first_strategy(connection: Connection, model: Model) -> str | None:
    """The strategy of a model's first version, the ancestor of all others; None while the model has no version."""
    query = (
        select(increments.c.strategy)
        .join(versions, versions.c.increment_id == increments.c.id)
        .where(versions.c.model_id == model.id)
        .order_by(versions.c.number)
        .limit(1)
    )
    return connection.scalar(query)


def without_file(connection: Connection, name: str) -> list[Version]:
    """Versions of all models that are not deleted and have no file of that name, oldest first."""
    query = select(versions).where(versions.c.deleted_at.is_(None)).order_by(versions.c.created_at)
    found = connection.execute(query.order_by(versions.c.model_id, versions.c.number)).mappings()
    return [version for version in map(rows.version, found) if name not in version.files]


def add_file(
    connection: Connection, version: Version, name: str, file: StoredFile, *, exists: Callable[[str], bool]
) -> bool:
    """Add a file, whose blob is stored, to a version that was made without it; whether it was added.

    If the version was deleted, or has a file of that name by now, nothing changes and the blob is released. Raises
    `BlobMissing` if the blob was deleted meanwhile.
    """
    locks.lock_model(connection, version.model_id)
    present = find(connection, version.model_id, version.number)
    if present is None or present.deleted_at is not None or name in present.files:
        references.release(connection, [file.sha256])
        return False
    this = (versions.c.model_id == version.model_id) & (versions.c.number == version.number)
    connection.execute(update(versions).where(this).values(files=_documents({**present.files, name: file})))
    if references.keep(connection, [file.sha256], exists=exists):
        raise BlobMissing(f"blob {file.sha256} was deleted while {name} was being stored", sha256=file.sha256)
    return True


def remove(connection: Connection, model: Model, number: int) -> None:
    """Delete a version, its files, and the images that were kept only for it.

    The caller holds the model's lock. Raises `VersionNotFound`, and `VersionInUse` for the current version, for the
    head, and for the parent of a running increment. The version's row stays, marked as deleted, and so do its metrics:
    the accuracy matrix of its descendants needs them.
    """
    version = get(connection, model, number)
    if (use := _use(connection, model, number)) is not None:
        raise VersionInUse(f"Version {number} of {model.name!r} is {use}.")
    this = (versions.c.model_id == model.id) & (versions.c.number == number)
    connection.execute(update(versions).where(this).values(deleted_at=now()))
    if model.previous == number:
        connection.execute(update(models).where(models.c.id == model.id).values(previous=None))
    connection.execute(delete(exports).where(exports.c.model_id == model.id).where(exports.c.version == number))
    exemplars.release(connection, model=model, version=number)
    references.release(connection, {file.sha256 for file in version.files.values()})


def _use(connection: Connection, model: Model, number: int) -> str | None:
    if model.current == number:
        return "current: promote another one first"
    if model.head == number:
        return "head: promote another one first"
    trained_from = (
        select(increments.c.id)
        .where(increments.c.model_id == model.id)
        .where(increments.c.status == IncrementStatus.RUNNING)
        .where(increments.c.parent == number)
    )
    increment = connection.scalar(trained_from)
    return f"the parent of increment {increment}: wait for it, or cancel it" if increment is not None else None


def _documents(files: Mapping[str, StoredFile]) -> dict[str, dict[str, str | int]]:
    return {name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in files.items()}
