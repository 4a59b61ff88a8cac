"""No commit names bytes that a power cut could still take: everything is synced to disk before a row refers to it."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

from storage.blobs.directory import DirectoryBlobs
from storage.domain import Image
from storage.material import references
from storage.material.images import of_batch
from storage.settings import Settings
from tests.api.worlds import World, class_zip, picture, redis_server, running
from tests.conftest import copy_sqlite
from trainer.process import stages
from trainer.process.context import AttemptContext
from trainer.process.job import read_job
from trainer.process.lines import LineReport
from trainer.process.protocol import CHECKPOINT
from trainer.workers import attempt
from trainer.workers.checkpoint_upload import CheckpointUpload
from trainer.workers.recording import AttemptRecorder

pytestmark = pytest.mark.flow
QUICK = {"preset": "quick", "epochs": 1}


class Watched(DirectoryBlobs):
    """A folder of blobs that knows which of them are not synced yet."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.unsynced: set[str] = set()

    def put(self, data: bytes) -> str:
        digest = super().put(data)
        self.unsynced.add(digest)
        return digest

    def put_file(self, path: Path, *, sha256: str | None = None) -> str:
        digest = super().put_file(path, sha256=sha256)
        self.unsynced.add(digest)
        return digest

    def sync(self) -> None:
        before = set(self.unsynced)
        super().sync()
        self.unsynced -= before


class Commits:
    """Every commit of this process: which blobs it refers to for the first time, and which of those were not synced."""

    def __init__(self, blobs: Watched) -> None:
        self.named: set[str] = set()
        self.exposed: set[str] = set()
        self._blobs = blobs

    def look(self, connection: Connection) -> None:
        if not connection.get_execution_options().get("accrete_writes"):
            return
        referred = references.everything(connection)
        self.exposed |= referred & self._blobs.unsynced
        self.named |= referred


@pytest.fixture
def blobs(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "home" / "blobs")


@pytest.fixture
def commits(blobs: Watched) -> Iterator[Commits]:
    watched = Commits(blobs)
    event.listen(Engine, "commit", watched.look)
    yield watched
    event.remove(Engine, "commit", watched.look)


@pytest.fixture
def world(blobs: Watched, migrated_sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("api.app.open_blobs", lambda _url: blobs)
    copy_sqlite(migrated_sqlite, tmp_path / "home" / "accrete.db")
    with redis_server(tmp_path / "redis") as url:
        settings = Settings(
            home=tmp_path / "home", database_url=None, blob_url=None, redis_url=url, keys="none", checkpoint_seconds=0
        )
        with running(settings) as started:
            yield started


def attempt_in_this_process(world: World, blobs: Watched, increment_id: str) -> tuple[Image, ...]:
    """Every stage of an increment, its checkpoint and its publication; the images of its batch."""
    claim = world.claim(increment_id)
    folder = attempt.scratch_folder(world.settings, claim)
    folder.mkdir(parents=True)
    threads = torch.get_num_threads()
    with world.database.read() as connection:
        job = read_job(connection, claim)
    outcome = stages.run(job, AttemptContext(world.database, blobs, world.settings, folder, LineReport(io.StringIO())))
    torch.set_num_threads(threads)
    outcome.write(folder)
    with CheckpointUpload(claim, folder, database=world.database, blobs=blobs) as kept:
        assert (folder / CHECKPOINT).exists()
        kept.take_over()
    with AttemptRecorder(claim, database=world.database, settings=world.settings) as logbook:
        stopping = threading.Event()
        made = attempt.Attempt(claim, folder, logbook, world.settings, world.database, blobs, stopping)
        attempt._conclude(made, 0, "")
    with world.database.read() as connection:
        return of_batch(connection, job.batch.id)


def test_what_a_commit_refers_to_survives_a_power_cut(world: World, blobs: Watched, commits: Commits):
    name = world.model(recipe=QUICK, strategy="lwf-bsr", memory={"per_class": 3})
    first = attempt_in_this_process(world, blobs, world.increment(name, "cat", "dog", each=6)["id"])
    assert {image.shard for image in first} | {image.pack for image in first} <= commits.named
    rehearsed = {image.shard for image in first}
    for shard in rehearsed:
        assert shard is not None
        (blobs.root / shard[:2] / shard).write_bytes(b"damaged")  # exemplars are packed anew from their originals

    batch = world.http.post(f"/v1/models/{name}/batches").json()["id"]
    for label in ("emu", "fox"):
        for number in range(5):
            data = picture(hash((label, number)))
            answer = world.http.post(f"/v1/batches/{batch}/images", params={"label": label}, content=data)
            assert answer.is_success, answer.text
    asked = world.http.post(f"/v1/models/{name}/increments", json={"batch_id": batch})
    assert asked.status_code == 202, asked.text
    attempt_in_this_process(world, blobs, asked.json()["id"])
    assert world.http.get(f"/v1/models/{name}").json()["current"] == 2

    archive = world.http.post(f"/v1/models/{name}/batches", content=class_zip("gnu", "hen"))
    assert archive.status_code == 201, archive.text
    assert world.http.delete(f"/v1/images/{first[0].id}").is_success  # its pack is written anew without it
    assert first[0].pack not in set(blobs.digests())
    assert commits.exposed == set()
