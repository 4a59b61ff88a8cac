"""A service as a worker's other processes find it: versions whose files are stored, and images with packed copies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from storage.blobs.opening import open_blobs
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.domain import Split, StoredFile, Version
from storage.history import versions
from storage.material import images
from storage.settings import Settings
from storage.work import increments
from tests.conftest import copy_sqlite
from tests.storage.worlds import World
from tests.trainer.export.material import network, transform
from trainer.ingestion.packing import store
from trainer.networks import write_version
from trainer.networks.pictures import Form

SIZE = 32  # of the worlds' models
FORM = Form(channels=3, image_size=SIZE)


@dataclass
class Service:
    """A database with versions whose files are stored, as an earlier release left them."""

    settings: Settings
    world: World
    blobs: BlobStore
    folder: Path

    def learn(self, *labels: str) -> Version:
        """A version of freshly initialised weights."""
        model = self.world.model()
        pushed = self.world.push(model, *labels)
        claim = self.world.must_claim()
        self.world.ingest(pushed.batch)
        outcome = self.world.outcome(claim)
        (folder := self.folder / f"version {outcome.number}").mkdir()
        sizes = tuple(map(len, outcome.tasks))
        write_version(
            folder, network(size=SIZE, tasks=sizes), transform=transform(size=SIZE), manifest={"tasks": outcome.tasks}
        )
        files = {
            path.name: StoredFile(sha256=self.blobs.put(path.read_bytes()), bytes=path.stat().st_size)
            for path in folder.iterdir()
        }
        published = self.world.publish(claim, replace(outcome, files=files))
        assert published is not None
        return published.version

    def pack(self, version: Version) -> int:
        """Give the evaluation images of a version packed copies, of noise; their number."""
        found = [image for image in self.images(version) if image.split is Split.TEST]
        generator = torch.Generator().manual_seed(version.number)
        rows = {
            image.id: bytes(torch.randint(0, 256, (FORM.row_bytes,), generator=generator).tolist()) for image in found
        }
        places = store(found, lambda image: rows[image.id], form=FORM, folder=self.folder, blobs=self.blobs)
        placed = [replace(image, shard=places[image.id][0], row=places[image.id][1]) for image in found]
        self.world.write(images.place, placed)
        return len(found)

    def images(self, version: Version) -> Any:
        return self.world.read(images.of_batch, self.world.read(increments.get, version.increment_id).batch)

    def now(self, version: Version) -> Version:
        return self.world.read(versions.get, self.world.model(), version.number)

    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
        return own | {"ACCRETE_HOME": str(self.settings.home)}


@contextmanager
def stored_service(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Service]:
    """A service with one model and no version yet."""
    (home := tmp_path / "home").mkdir()
    settings = Settings(home=home, database_url=None, blob_url=None)
    settings.scratch.mkdir(parents=True)
    copy_sqlite(migrated_sqlite, home / "accrete.db")
    database = Database(settings.database)
    world = World(database)
    world.create()
    (folder := tmp_path / "made").mkdir()
    yield Service(settings, world, open_blobs(settings.blobs), folder)
    database.close()
