"""Restore: brings the rows and blobs of a backup into an empty service, and migrates rows of earlier releases."""

import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

from alembic.util import CommandError
from sqlalchemy import JSON, URL, Connection, Integer, MetaData, Table, delete, func, insert, select, text

from storage.blobs.store import DIGEST, BlobStore, file_digest
from storage.database.engine import Database
from storage.database.tables import audit, keys, metadata, models, released
from storage.errors import BackupUnfit
from storage.maintenance.backup import FORMAT, TOGETHER, WHEN, Contents, look
from storage.migrations import latest, revision, upgrade

_KNOWN = re.compile(rf"blobs/{DIGEST.pattern}|tables/[a-z]+\.jsonl|manifest\.json")


def restore(source: Path, *, database_url: str | URL, blobs: BlobStore) -> Contents:
    """Restore the rows of a backup into an empty database and its blobs into a store; all rows appear at once, or none.

    A database without models counts as empty, and so does a store without blobs other than those of the backup. API
    keys and audit entries that the database has already stay beside those of the backup. Raises `BackupUnfit` for a
    file that is not a backup or was cut off, and for a database or a store that is not empty.
    """
    if revision(database_url) is not None:
        upgrade(database_url)
        _refuse_used(database_url)
    with tempfile.TemporaryDirectory() as scratch:
        manifest = _unpack(source, Path(scratch), blobs)
        _renew(source, manifest, Path(scratch))
        upgrade(database_url)
        database = Database(database_url)
        try:
            with database.write() as connection:
                _refuse_models(connection)
                own = _set_aside(connection)
                for table in metadata.sorted_tables:
                    if table.name in manifest["rows"]:
                        _fill(connection, table, Path(scratch) / f"{table.name}.jsonl")
                _bring_back(connection, own)
        finally:
            database.close()
    return Contents(int(manifest["blobs"]), manifest["rows"])


def _renew(source: Path, manifest: Mapping[str, Any], scratch: Path) -> None:
    """Migrate the tables of a backup from an earlier release, in a temporary SQLite database."""
    if (then := str(manifest["revision"])) == latest():
        return
    url = URL.create("sqlite", database=str(scratch / "renewed.db"))
    try:
        upgrade(url, then)
    except CommandError as error:
        raise BackupUnfit(f"{source} was written by a later release, or is damaged: {error}") from error
    database = Database(url)
    try:
        with database.write() as connection:
            known = MetaData()
            known.reflect(connection)
            for table in known.sorted_tables:
                if table.name in manifest["rows"]:
                    _fill(connection, table, scratch / f"{table.name}.jsonl")
        upgrade(url)
        look(database, scratch)
    finally:
        database.close()
    for table in metadata.sorted_tables:
        (scratch / table.name).replace(scratch / f"{table.name}.jsonl")


def _set_aside(connection: Connection) -> dict[Table, list[dict[str, Any]]]:
    """Empty the tables that have rows even without models; returns the API keys and audit entries."""
    own = {table: [dict(row) for row in connection.execute(select(table)).mappings()] for table in (keys, audit)}
    for table in (keys, audit, released):
        connection.execute(delete(table))
    return own


def _bring_back(connection: Connection, own: Mapping[Table, Sequence[Mapping[str, Any]]]) -> None:
    """Add the API keys and audit entries of the service to the restored ones; of a key in both, the service's stays."""
    for key in own[keys]:
        connection.execute(delete(keys).where(keys.c.digest == key["digest"]))
        connection.execute(insert(keys).values(**key))
    for entry in own[audit]:
        connection.execute(insert(audit).values(**{name: value for name, value in entry.items() if name != "number"}))


def _unpack(source: Path, scratch: Path, blobs: BlobStore) -> dict[str, Any]:
    """Put the blobs into the store and the tables into files; returns the manifest."""
    names: list[str] = []
    try:
        _refuse_other_blobs(source, blobs)
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


def _refuse_other_blobs(source: Path, blobs: BlobStore) -> None:
    """Raise `BackupUnfit` if the store holds other blobs; an interrupted restore leaves those of the backup there."""
    if (stored := set(blobs.digests())) and (others := stored - _blobs_named(source)):
        raise BackupUnfit(
            f"The blob store holds {len(others)} blobs that the backup does not have: restore into an empty one "
            "(another ACCRETE_HOME or ACCRETE_BLOB_URL)."
        )


def _blobs_named(source: Path) -> set[str]:
    with tarfile.open(source) as archive:
        return {member.name.removeprefix("blobs/") for member in archive if member.name.startswith("blobs/")}


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
    """Compare what was unpacked with the manifest; raises `BackupUnfit`, and KeyError for a missing entry."""
    _ = manifest["rows"].keys(), manifest["revision"]
    if manifest["format"] != FORMAT:
        raise BackupUnfit(f"{source} has format {manifest['format']}, this release reads {FORMAT}: use a later one.")
    if stored < manifest["blobs"]:
        raise BackupUnfit(f"{source} is damaged: {stored} blobs instead of {manifest['blobs']}.")
    for name, digest in manifest["sha256"].items():
        path = scratch / f"{name}.jsonl"
        if not path.exists() or file_digest(path) != digest:
            raise BackupUnfit(f"{source} is damaged: table {name} is not what was written.")


def _refuse_used(database_url: str | URL) -> None:
    """Raise `BackupUnfit` if the database holds models; called before anything is restored."""
    database = Database(database_url)
    try:
        with database.read() as connection:
            _refuse_models(connection)
    finally:
        database.close()


def _refuse_models(connection: Connection) -> None:
    if connection.scalar(select(func.count()).select_from(models)):
        raise BackupUnfit("The database holds models already: restore into an empty one (another ACCRETE_HOME).")


def _fill(connection: Connection, table: Table, path: Path) -> None:
    """Insert the rows of a file, and let the table's sequence continue after them."""
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
        while lines := list(islice(file, TOGETHER)):
            yield [json.loads(line, object_hook=_from_json) for line in lines]


def _from_json(value: dict[str, Any]) -> Any:
    return datetime.fromisoformat(value[WHEN]) if value.keys() == {WHEN} else value
