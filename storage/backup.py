"""Backup and restore: the database and the blobs it refers to, in one tar file, while the service runs.

Blobs never change and rows do. So the whole database is looked at once, and then the blobs are copied that it needs.
Should one have gone before it could be copied, so have its rows by then, and another look is taken. The file holds
``blobs/DIGEST`` …, ``tables/NAME.jsonl`` …, and at its end ``manifest.json``; a file without it was cut off. Rows are
JSON, so a backup of SQLite can be restored to PostgreSQL and the other way round.
"""

import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import JSON, URL, Connection, Integer, MetaData, Table, func, insert, select, text

from storage import references
from storage.blobs import DIGEST, BlobStore, arriving, file_digest
from storage.database import Database
from storage.errors import BackupUnfit, BlobMissing
from storage.migrations import upgrade
from storage.tables import metadata, models

FORMAT = 1
_LOOKS = 20  # at the database, before it is given up that blobs go as fast as they are copied
_TOGETHER = 1000  # rows inserted at a time
_WHEN = "$moment"
_KNOWN = re.compile(rf"blobs/{DIGEST.pattern}|tables/[a-z]+\.jsonl|manifest\.json")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a backup holds."""

    blobs: int
    rows: Mapping[str, int]  # by table


def write(target: Path, *, database: Database, blobs: BlobStore) -> Contents:
    """Write a backup; the file appears when it is whole. Raises `BackupUnfit` where a blob is missing for good."""
    with arriving(target) as unfinished, tempfile.TemporaryDirectory() as scratch:
        unfinished.touch(0o600, exist_ok=False)
        with unfinished.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                contents = _write(archive, database, blobs, Path(scratch))
            file.flush()
            os.fsync(file.fileno())
    return contents


def _write(archive: tarfile.TarFile, database: Database, blobs: BlobStore, scratch: Path) -> Contents:
    rows, copied = _copy_all(archive, database, blobs, scratch)
    for name in rows:
        _add(archive, f"tables/{name}.jsonl", scratch / name)
    contents = Contents(copied, rows)
    manifest = {
        "format": FORMAT,
        "revision": _revision(database),
        "blobs": contents.blobs,
        "rows": rows,
        "sha256": {name: file_digest(scratch / name) for name in rows},
    }
    (scratch / "manifest").write_text(json.dumps(manifest), encoding="utf-8")
    _add(archive, "manifest.json", scratch / "manifest")
    return contents


def _copy_all(
    archive: tarfile.TarFile, database: Database, blobs: BlobStore, scratch: Path
) -> tuple[dict[str, int], int]:
    """Look until every blob that is needed is copied; rows of the last look by table, and how many blobs it needs."""
    copied: set[str] = set()
    missing: set[str] = set()
    for _ in range(_LOOKS):
        rows, wanted = _look(database, scratch)
        if still := missing & wanted:
            raise BackupUnfit(f"Blob {min(still)} is not stored, and something needs it: delete that, or restore it.")
        missing = _copy(archive, wanted - copied, blobs, scratch)
        copied |= wanted - missing
        if not missing:
            return rows, len(wanted)
    raise BackupUnfit("Blobs are deleted faster than they can be copied: try again.")


def restore(source: Path, *, database_url: str | URL, blobs: BlobStore) -> Contents:
    """Bring a backup into an empty database and its blobs into a store; all rows appear at once, or none.

    The database gets the tables of the backup's time first, then those of today. Raises `BackupUnfit` for a file that
    is none or was cut off, and for a database that holds anything.
    """
    with tempfile.TemporaryDirectory() as scratch:
        manifest = _unpack(source, Path(scratch), blobs)
        try:
            upgrade(database_url, str(manifest["revision"]))
        except CommandError as error:
            why = f"{source} was written by a later release, or is damaged: {error}"
            raise BackupUnfit(why) from error
        database = Database(database_url)
        try:
            with database.write() as connection:
                _refuse_used(connection)
                known = MetaData()
                known.reflect(connection)
                for table in known.sorted_tables:
                    if table.name in manifest["rows"]:
                        _fill(connection, table, Path(scratch) / f"{table.name}.jsonl")
        finally:
            database.close()
    upgrade(database_url)
    return Contents(int(manifest["blobs"]), manifest["rows"])


def _look(database: Database, scratch: Path) -> tuple[dict[str, int], frozenset[str]]:
    """Write every table to a file, in one view of the database; their rows' numbers, and the blobs they refer to."""
    counts = {}
    with database.read() as connection:
        for table in metadata.sorted_tables:
            with (scratch / table.name).open("w", encoding="utf-8") as file:
                counts[table.name] = 0
                for row in connection.execution_options(yield_per=_TOGETHER).execute(select(table)).mappings():
                    file.write(json.dumps(dict(row), default=_as_json) + "\n")
                    counts[table.name] += 1
        return counts, references.everything(connection)


def _copy(archive: tarfile.TarFile, digests: Iterable[str], blobs: BlobStore, scratch: Path) -> set[str]:
    """Add blobs to the archive, checked; those that are not there any more."""
    missing: set[str] = set()
    for digest in sorted(digests):
        path = scratch / "blob"
        try:
            blobs.fetch(digest, path)
        except BlobMissing:
            missing.add(digest)
            continue
        _add(archive, f"blobs/{digest}", path)
        path.unlink()
    return missing


def _unpack(source: Path, scratch: Path, blobs: BlobStore) -> dict[str, Any]:
    """Put the blobs into the store and the tables into files; the manifest."""
    names: list[str] = []
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                if content is None or not _KNOWN.fullmatch(member.name):
                    raise BackupUnfit(f"{source} is no backup: it holds {member.name[:100]!r}.")
                names.append(member.name)
                _take(member.name, content, scratch, blobs)
        if "manifest.json" not in names:
            raise BackupUnfit(f"{source} is cut off: its last part is missing.")
        manifest: dict[str, Any] = json.loads((scratch / "manifest.json").read_text(encoding="utf-8"))
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BackupUnfit(f"{source} is no backup, or a damaged one: {error}") from error
    try:
        _check(source, manifest, scratch, stored=sum(name.startswith("blobs/") for name in names))
    except (KeyError, TypeError, AttributeError) as error:
        raise BackupUnfit(f"{source} is damaged: its manifest lacks something ({error!r}).") from error
    blobs.sync()
    return manifest


def _take(name: str, content: IO[bytes], scratch: Path, blobs: BlobStore) -> None:
    """One member of a backup: a blob goes into the store, and anything else into a file of its name."""
    path = scratch / name.rpartition("/")[2]
    with path.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
    if not name.startswith("blobs/"):
        return
    if (found := file_digest(path)) != path.name:
        raise BackupUnfit(f"The backup is damaged: what should be blob {path.name} is {found}.")
    blobs.put_file(path, sha256=found)


def _check(source: Path, manifest: Mapping[str, Any], scratch: Path, *, stored: int) -> None:
    """Compare what came with what was written, and what will be asked for."""
    _ = manifest["rows"].keys(), manifest["revision"]
    if manifest["format"] != FORMAT:
        raise BackupUnfit(f"{source} has format {manifest['format']}, this release reads {FORMAT}: use a later one.")
    if stored < manifest["blobs"]:
        raise BackupUnfit(f"{source} is damaged: {stored} blobs instead of {manifest['blobs']}.")
    for name, digest in manifest["sha256"].items():
        path = scratch / f"{name}.jsonl"
        if not path.exists() or file_digest(path) != digest:
            raise BackupUnfit(f"{source} is damaged: table {name} is not what was written.")


def _refuse_used(connection: Connection) -> None:
    if connection.scalar(select(func.count()).select_from(models)):
        raise BackupUnfit("The database holds models already: restore into an empty one (another ACCRETE_HOME).")


def _fill(connection: Connection, table: Table, path: Path) -> None:
    """Insert the rows of a file, and let counting go on after them."""
    for column in table.columns:
        if isinstance(column.type, JSON):
            column.type = JSON(none_as_null=True)
    for rows in _batched(path):
        connection.execute(insert(table), rows)
    (key, *others) = table.primary_key.columns
    if connection.dialect.name == "postgresql" and not others and isinstance(key.type, Integer):
        last = connection.scalar(select(func.max(key)))
        name = connection.scalar(
            text("SELECT pg_get_serial_sequence(:table, :key)"), {"table": table.name, "key": key.name}
        )
        if name is not None and last is not None:
            connection.execute(text("SELECT setval(:name, :last)"), {"name": name, "last": last})


def _batched(path: Path) -> Iterator[list[dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        while lines := list(islice(file, _TOGETHER)):
            yield [json.loads(line, object_hook=_from_json) for line in lines]


def _as_json(value: object) -> dict[str, str]:
    if isinstance(value, datetime):
        return {_WHEN: value.isoformat()}
    raise TypeError(f"{value!r} has no place in a backup")


def _from_json(value: dict[str, Any]) -> Any:
    return datetime.fromisoformat(value[_WHEN]) if value.keys() == {_WHEN} else value


def _revision(database: Database) -> str:
    with database.read() as connection:
        return str(MigrationContext.configure(connection).get_current_revision())


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    """A file as it is: `TarFile.add` would take one whose inode it has seen before for another name of the same."""
    member = tarfile.TarInfo(name)
    member.size = path.stat().st_size
    with path.open("rb") as file:
        archive.addfile(member, file)
