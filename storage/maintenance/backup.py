"""Backup: the database and the blobs it refers to, in one tar file, while the service runs.

Rows change, but blobs never do. So the whole database is read in one transaction, and then the blobs are copied that it
needs. If a blob is deleted before it is copied, its rows have been deleted too, and the database is read again.

The file holds ``blobs/DIGEST`` …, ``tables/NAME.jsonl`` …, and at its end ``manifest.json``. A file without a manifest
was cut off. Rows are JSON, so a backup of SQLite can be restored to PostgreSQL and the other way round
(`storage.maintenance.restoration`).
"""

import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select

from storage.blobs.store import BlobStore, arriving, file_digest
from storage.database.engine import Database
from storage.database.tables import metadata
from storage.errors import BackupUnfit, BlobMissing
from storage.material import references
from storage.migrations import revision

FORMAT = 1
_LOOKS = 20  # reads of the database before giving up, because blobs are deleted as fast as they are copied
TOGETHER = 1000  # rows inserted at a time
WHEN = "$moment"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a backup holds."""

    blobs: int
    rows: Mapping[str, int]  # by table


def write(target: Path, *, database: Database, blobs: BlobStore) -> Contents:
    """Write a backup; the file appears when it is complete. Raises `BackupUnfit` if a needed blob is missing."""
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
        "revision": revision(database.url),
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
    """Read the database again until every blob that it needs is copied.

    Returns the numbers of rows by table and the number of blobs, both of the last read. Raises `BackupUnfit`.
    """
    copied: set[str] = set()
    missing: set[str] = set()
    for _ in range(_LOOKS):
        rows, wanted = look(database, scratch)
        if still := missing & wanted:
            raise BackupUnfit(f"Blob {min(still)} is not stored, and something needs it: delete that, or restore it.")
        missing = _copy(archive, wanted - copied, blobs, scratch)
        copied |= wanted - missing
        if not missing:
            return rows, len(wanted)
    raise BackupUnfit("Blobs are deleted faster than they can be copied: try again.")


def look(database: Database, scratch: Path) -> tuple[dict[str, int], frozenset[str]]:
    """Write every table to a file, in one transaction; returns row counts by table, and the blobs needed."""
    counts = {}
    with database.read() as connection:
        for table in metadata.sorted_tables:
            with (scratch / table.name).open("w", encoding="utf-8") as file:
                counts[table.name] = 0
                for row in connection.execution_options(yield_per=TOGETHER).execute(select(table)).mappings():
                    file.write(json.dumps(dict(row), default=_as_json) + "\n")
                    counts[table.name] += 1
        return counts, references.everything(connection)


def _copy(archive: tarfile.TarFile, digests: Iterable[str], blobs: BlobStore, scratch: Path) -> set[str]:
    """Add blobs to the archive, checked; returns the digests of those that are no longer stored."""
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


def _as_json(value: object) -> dict[str, str]:
    if isinstance(value, datetime):
        return {WHEN: value.isoformat()}
    raise TypeError(f"{value!r} has no place in a backup")


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    """Add a file; `TarFile.add` would write a file with a reused inode as a hard link to an earlier one."""
    member = tarfile.TarInfo(name)
    member.size = path.stat().st_size
    with path.open("rb") as file:
        archive.addfile(member, file)
