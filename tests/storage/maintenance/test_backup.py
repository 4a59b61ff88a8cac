"""Backup and restore: the same rows and blobs elsewhere, whichever database and store, and none of a damaged file."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from storage.blobs.directory import DirectoryBlobs
from storage.blobs.opening import open_blobs
from storage.blobs.pack import PackWriter
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.domain import Image, Key, Prediction, Scope, Split, StoredFile, new_id, now
from storage.errors import BackupUnfit
from storage.history import metrics, versions
from storage.maintenance import backup, restoration
from storage.material import batches, images, packs, references
from storage.migrations import upgrade
from storage.requests import audit, keys, predictions
from tests.postgresql import PostgreSQL
from tests.storage.worlds import World


@pytest.fixture
def full(world: World, blobs: BlobStore, tmp_path: Path) -> World:
    """A world with something of everything, and its blobs."""
    model = world.create()
    pushed = world.push(model, "a", "b")
    claim = world.must_claim()
    world.write(batches.record_ingestion, pushed.batch_id, ingested=[], rejects=(), digest="2" * 64)
    files = {name: StoredFile(blobs.put(name.encode()), len(name)) for name in ("weights.safetensors", "version.json")}
    published = world.publish(claim, replace(world.outcome(claim), files=files))
    assert published is not None
    writer = PackWriter(tmp_path / "pack")
    offset = writer.add(b"packed")
    writer.close()
    pack = writer.store(blobs)
    batch = world.upload(model, "c")
    stored = [
        Image(new_id(), batch.id, "c", "ä.png", "1" * 64, 6, Split.TRAIN, None, None, pack.digest, offset),
        Image(new_id(), batch.id, "c", "2.png", blobs.put(b"alone"), 5, Split.TEST),
    ]
    world.write(batches.record_ingestion, batch.id, ingested=stored, rejects=(), digest="0" * 64, written=[pack])
    world.write(predictions.add, [Prediction(new_id(), model.id, 1, ((("a", 0.25), ("b", 0.75)),), now())])
    world.write(keys.create, name="robot", scopes={Scope.PREDICT, Scope.TRAIN}, rate=1.5)
    world.write(audit.note, action="create key", path="robot", change={})
    waiting = blobs.put(b"an archive that nobody has read yet")
    world.write(batches.create, model_id=model.id, archive=waiting, archive_kind="zip")
    return world


def everything(world: World) -> dict[str, list[str]]:
    """Every row of every table, readable, in an order of their own."""
    from sqlalchemy import select

    from storage.database.tables import metadata

    with world.database.read() as connection:
        return {
            table.name: sorted(str(dict(row)) for row in connection.execute(select(table)).mappings())
            for table in metadata.sorted_tables
        }


def referred(world: World, blobs: BlobStore) -> dict[str, bytes]:
    return {digest: blobs.get(digest) for digest in world.read(references.everything) if blobs.exists(digest)}


@pytest.fixture(params=["sqlite", "postgresql"])
def other_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'other.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.url(server.create(template="template0"))


def test_a_restored_service_has_the_same_rows_and_blobs(
    full: World, blobs: BlobStore, tmp_path: Path, other_database: str
):
    written = backup.write(tmp_path / "backup.tar", database=full.database, blobs=blobs)
    elsewhere = open_blobs(str(tmp_path / "elsewhere"))
    restored = restoration.restore(tmp_path / "backup.tar", database_url=other_database, blobs=elsewhere)
    assert restored == written
    other = World(Database(other_database))
    assert everything(other) == everything(full)
    assert referred(other, elsewhere) == referred(full, blobs)
    assert set(elsewhere.digests()) == full.read(references.everything)
    image = next(image for image in other.read(images.of_batch, _batch_of_c(other)) if image.pack is not None)
    assert elsewhere.get(str(image.pack)).endswith(b"packed")
    version = other.read(versions.get, other.model(), 1)
    assert other.read(metrics.of_versions, [version]) == full.read(metrics.of_versions, [version])
    last = other.look(version.increment_id).arrival
    assert other.push(other.model(), "x", "y").arrival > last  # numbers go on where they were
    other.write(audit.note, action="after", path="restore", change={})
    assert other.read(audit.page, limit=1, cursor=None).items[0].action == "after"
    other.database.close()


def _batch_of_c(world: World) -> str:
    from sqlalchemy import select

    from storage.database.tables import images as table

    with world.database.read() as connection:
        return str(connection.scalar(select(table.c.batch_id).where(table.c.label == "c").limit(1)))


def test_a_blob_that_goes_while_it_is_written_is_no_fault(full: World, blobs: BlobStore, tmp_path: Path, monkeypatch):
    image = next(image for image in full.read(images.of_batch, _batch_of_c(full)) if image.pack is None)
    copy = backup._copy
    once: list[int] = []

    def meanwhile(*arguments) -> set[str]:
        if not once:
            once.append(1)
            full.write(images.forget, [image.id])
            blobs.delete(image.digest)
        return copy(*arguments)

    monkeypatch.setattr(backup, "_copy", meanwhile)
    backup.write(tmp_path / "backup.tar", database=full.database, blobs=blobs)
    url = f"sqlite:///{tmp_path / 'other.db'}"
    restoration.restore(tmp_path / "backup.tar", database_url=url, blobs=open_blobs(str(tmp_path / "elsewhere")))
    other = World(Database(url))
    assert len(other.read(images.of_batch, _batch_of_c(other))) == 1
    other.database.close()


def test_a_blob_that_is_lost_is_named_and_no_backup_is_left(full: World, blobs: BlobStore, tmp_path: Path):
    image = next(image for image in full.read(images.of_batch, _batch_of_c(full)) if image.pack is None)
    blobs.delete(image.digest)
    with pytest.raises(BackupUnfit, match=image.digest):
        backup.write(tmp_path / "backup.tar", database=full.database, blobs=blobs)
    assert not list(tmp_path.glob("*backup*"))


def test_a_database_in_use_is_not_written_over(full: World, blobs: BlobStore, tmp_path: Path):
    backup.write(tmp_path / "backup.tar", database=full.database, blobs=blobs)
    before = everything(full)
    with pytest.raises(BackupUnfit, match="empty one"):
        restoration.restore(tmp_path / "backup.tar", database_url=full.database.url, blobs=blobs)
    assert everything(full) == before


def rewritten(source: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A backup with members changed or left out."""
    target = source.with_name("rewritten.tar")
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            if (data := change(member.name, content.read())) is not None:
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
    return target


DAMAGES: dict[str, Callable[[str, bytes], bytes | None]] = {
    "a blob with another byte": lambda name, data: b"X" + data[1:] if name.startswith("blobs/") else data,
    "no manifest": lambda name, data: None if name == "manifest.json" else data,
    "a blob too few": lambda name, data: None if name.startswith("blobs/") else data,
    "a table with another letter": lambda name, data: data.replace(b"plants", b"plantz"),
    "a table too few": lambda name, data: None if name == "tables/models.jsonl" else data,
    "a later format": lambda name, data: (
        json.dumps(json.loads(data) | {"format": 2}).encode() if name == "manifest.json" else data
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_damaged_backup_nothing_is_restored(full: World, blobs: BlobStore, tmp_path: Path, damage: str):
    backup.write(tmp_path / "backup.tar", database=full.database, blobs=blobs)
    url = f"sqlite:///{tmp_path / 'other.db'}"
    with pytest.raises(BackupUnfit, match=r"damaged|cut off|format|is no backup"):
        restoration.restore(
            rewritten(tmp_path / "backup.tar", DAMAGES[damage]),
            database_url=url,
            blobs=DirectoryBlobs(tmp_path / "elsewhere"),
        )
    restoration.restore(tmp_path / "backup.tar", database_url=url, blobs=DirectoryBlobs(tmp_path / "elsewhere"))


def test_a_damaged_backup_takes_nothing_from_the_store_it_would_go_to(full: World, blobs: BlobStore, tmp_path: Path):
    """What lies in a member of a wrong name may be a blob that somebody needs."""
    backup.write(tmp_path / "backup.tar", database=full.database, blobs=blobs)
    store = DirectoryBlobs(tmp_path / "elsewhere")
    content = blobs.get(min(blobs.digests()))
    needed = store.put(content)  # which the backup has, too: the store may hold no others

    def swap(name: str, data: bytes) -> bytes:
        return content if name.startswith("blobs/") else data

    with pytest.raises(BackupUnfit, match="damaged"):
        restoration.restore(
            rewritten(tmp_path / "backup.tar", swap), database_url=f"sqlite:///{tmp_path / 'other.db'}", blobs=store
        )
    assert store.get(needed) == content


@pytest.mark.parametrize(
    "change", [{"revision": "9999"}, {"revision": None}, {"sha256": None}, {"blobs": "many"}, {"rows": 1}]
)
def test_a_manifest_that_cannot_be_is_refused(full: World, blobs: BlobStore, tmp_path: Path, change: dict[str, object]):
    backup.write(tmp_path / "backup.tar", database=full.database, blobs=blobs)

    def changed(name: str, data: bytes) -> bytes:
        return json.dumps(json.loads(data) | change).encode() if name == "manifest.json" else data

    with pytest.raises(BackupUnfit, match=r"damaged|later release"):
        restoration.restore(
            rewritten(tmp_path / "backup.tar", changed),
            database_url=f"sqlite:///{tmp_path / 'other.db'}",
            blobs=DirectoryBlobs(tmp_path / "elsewhere"),
        )


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_a_backup_that_was_cut_off_is_refused(full: World, blobs: BlobStore, tmp_path: Path, share: float):
    backup.write(tmp_path / "backup.tar", database=full.database, blobs=blobs)
    data = (tmp_path / "backup.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BackupUnfit):
        restoration.restore(
            tmp_path / "cut.tar",
            database_url=f"sqlite:///{tmp_path / 'other.db'}",
            blobs=DirectoryBlobs(tmp_path / "elsewhere"),
        )


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "blobs/../../outside", "tables/../x.jsonl", "tables/x"])
def test_a_member_of_another_name_is_refused(tmp_path: Path, name: str):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(BackupUnfit, match="is no backup"):
        restoration.restore(
            tmp_path / "evil.tar",
            database_url=f"sqlite:///{tmp_path / 'other.db'}",
            blobs=DirectoryBlobs(tmp_path / "elsewhere"),
        )
    assert not (tmp_path.parent / "outside").exists()


def test_a_backup_is_for_its_owner_alone(full: World, blobs: BlobStore, tmp_path: Path):
    backup.write(tmp_path / "backup.tar", database=full.database, blobs=blobs)
    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600


def test_a_pack_with_holes_is_closed_after_the_restore_too(full: World, blobs: BlobStore, tmp_path: Path):
    image = next(image for image in full.read(images.of_batch, _batch_of_c(full)) if image.pack is not None)
    full.write(images.forget, [image.id])
    backup.write(tmp_path / "backup.tar", database=full.database, blobs=blobs)
    url = f"sqlite:///{tmp_path / 'other.db'}"
    restoration.restore(tmp_path / "backup.tar", database_url=url, blobs=DirectoryBlobs(tmp_path / "elsewhere"))
    other = World(Database(url))
    assert other.read(packs.with_holes) == (image.pack,)
    assert image.pack in other.released()
    other.database.close()


def restored_beside_a_key(full: World, blobs: BlobStore, folder: Path, url: str) -> tuple[World, Key, dict[str, Key]]:
    """A world restored into one that had an administrator's key; that key, and all there are by name."""
    backup.write(folder / "backup.tar", database=full.database, blobs=blobs)
    upgrade(url)
    other = World(Database(url))
    mine = other.write(keys.install_admin, "0123456789abcdef" * 2)
    other.write(audit.note, action="create key", path="mine", change={})
    restoration.restore(folder / "backup.tar", database_url=url, blobs=open_blobs(str(folder / "elsewhere")))
    return other, mine, {key.name: key for key in other.read(keys.every)}


def test_a_restore_goes_beside_the_keys_that_are_there(
    full: World, blobs: BlobStore, tmp_path: Path, other_database: str
):
    other, mine, found = restored_beside_a_key(full, blobs, tmp_path, other_database)
    assert found == {"robot": full.read(keys.every)[0], mine.name: mine}
    with other.database.read() as connection:
        actions = connection.exec_driver_sql("SELECT path FROM audit ORDER BY number").scalars().all()
    assert actions == ["robot", "mine"]
    other.write(audit.note, action="create key", path="later", change={})  # counting goes on after them
    other.database.close()


def test_a_key_that_both_know_is_as_it_was_before_the_restore(
    full: World, blobs: BlobStore, tmp_path: Path, other_database: str
):
    full.write(keys.install_admin, "0123456789abcdef" * 2)
    full.write(keys.revoke, keys.ADMIN_FILE)
    other, mine, found = restored_beside_a_key(full, blobs, tmp_path, other_database)
    assert found[keys.ADMIN_FILE] == mine
    assert found[keys.ADMIN_FILE].revoked_at is None
    other.database.close()


def test_a_store_with_blobs_of_others_is_refused_and_nothing_is_brought(full: World, blobs: BlobStore, tmp_path: Path):
    backup.write(tmp_path / "backup.tar", database=full.database, blobs=blobs)
    elsewhere = DirectoryBlobs(tmp_path / "elsewhere")
    theirs = elsewhere.put(b"theirs")
    url = f"sqlite:///{tmp_path / 'new.db'}"
    with pytest.raises(BackupUnfit, match="1 blobs that the backup does not have"):
        restoration.restore(tmp_path / "backup.tar", database_url=url, blobs=elsewhere)
    assert set(elsewhere.digests()) == {theirs}
    assert not (tmp_path / "new.db").exists()


def test_a_database_with_models_is_refused_before_a_blob_is_brought(full: World, blobs: BlobStore, tmp_path: Path):
    backup.write(tmp_path / "backup.tar", database=full.database, blobs=blobs)
    elsewhere = DirectoryBlobs(tmp_path / "elsewhere")
    with pytest.raises(BackupUnfit, match="models already"):
        restoration.restore(tmp_path / "backup.tar", database_url=full.database.url, blobs=elsewhere)
    assert not set(elsewhere.digests())


def test_tables_of_an_earlier_release_are_renewed_beside_a_key_that_is_there(tmp_path: Path, other_database: str):
    row: dict[str, object] = {"id": "1", "name": "old", "digest": "d", "scopes": ["predict"], "model_id": None}
    row["rate"] = None
    row |= {"created_at": {"$moment": "2026-01-02T03:04:05+00:00"}, "revoked_at": None}
    content = (json.dumps(row) + "\n").encode()
    manifest: dict[str, object] = {"format": 1, "revision": "0005", "blobs": 0, "rows": {"keys": 1}}
    manifest["sha256"] = {"keys": hashlib.sha256(content).hexdigest()}
    with tarfile.open(tmp_path / "backup.tar", "w") as archive:
        for name, data in (("tables/keys.jsonl", content), ("manifest.json", json.dumps(manifest).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    upgrade(other_database)
    other = World(Database(other_database))
    mine, _ = other.write(keys.create, name="mine", scopes={Scope.ADMIN})
    store = DirectoryBlobs(tmp_path / "elsewhere")
    restoration.restore(tmp_path / "backup.tar", database_url=other_database, blobs=store)
    assert {key.name for key in other.read(keys.every)} == {"old", mine.name}
    other.database.close()
