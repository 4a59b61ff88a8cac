"""`python -m trainer.process.upgrade`: gives network.onnx to versions of earlier releases, one after another.

A version's own version.json stays as it was written, so it does not name the file; the version's record does. A process
that is killed leaves at most a blob that nothing refers to, which `accrete gc` finds.
"""

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from storage import evaluations
from storage.blobs.opening import open_blobs
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.domain import Model, StoredFile, Version
from storage.errors import BlobDamaged, BlobMissing
from storage.history import models, versions
from storage.maintenance.disposal import dispose
from storage.settings import Settings, settings_of_process
from trainer.export import Disagreement, NotExportable, write_executable
from trainer.networks import load_version
from trainer.networks.manifest import EXECUTABLE
from trainer.process.attachment import end_with_parent
from trainer.process.resources import yield_processor
from trainer.process.stored_pixels import evaluation_pixels

NICENESS = 19  # the lowest priority: nobody waits for this


@dataclass(frozen=True, slots=True)
class Looked:
    """What became of a version."""

    model: str
    version: int
    reason: str | None  # why it has no executable; None if it has one now


def main(arguments: Sequence[str] | None = None) -> int:
    """Upgrade every version that lacks the file, and say what was done; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m trainer.process.upgrade", description="Settings are ACCRETE_….")
    parser.add_argument("--json", action="store_true", help="one JSON document at the end, and nothing else")
    parser.add_argument("--attached", action="store_true", help="end when standard input is closed")
    asked = parser.parse_args(arguments)
    settings = settings_of_process()
    if asked.attached:
        threading.Thread(target=end_with_parent, daemon=True).start()
    yield_processor(NICENESS)
    torch.set_num_threads(1)
    looked: list[Looked] = []
    for one in upgrade(settings):
        looked.append(one)
        if not asked.json:
            _say(f"{one.model} version {one.version}: {one.reason or f'{EXECUTABLE} added'}")
    if asked.json:
        _say(json.dumps({"versions": [asdict(one) for one in looked]}, ensure_ascii=False))
    elif not looked:
        _say(f"every version has its {EXECUTABLE}")
    return 0


def upgrade(settings: Settings) -> Iterator[Looked]:
    """Look at every version without an executable once; add it where it can be written and agrees with the network."""
    database, blobs = Database(settings.database), open_blobs(settings.blobs)
    try:
        with database.read() as connection:
            lacking = versions.without_file(connection, EXECUTABLE)
        for version in lacking:
            with database.read() as connection:
                model = models.find(connection, version.model_id)
                present = versions.find(connection, version.model_id, version.number)
            if model is None or present is None or present.deleted_at is not None or EXECUTABLE in present.files:
                continue  # by another process, meanwhile
            try:
                _add(model, version, database=database, blobs=blobs)
            except (NotExportable, Disagreement) as error:
                yield Looked(model.name, version.number, f"no {EXECUTABLE}, because {error}")
            except (BlobDamaged, BlobMissing) as error:
                yield Looked(model.name, version.number, f"no {EXECUTABLE}, because {error.detail}")
            except (ValueError, KeyError, RuntimeError) as error:  # it does not load
                yield Looked(model.name, version.number, f"no {EXECUTABLE}, because it does not load: {error}")
            else:
                yield Looked(model.name, version.number, None)
        dispose(database=database, blobs=blobs, scratch=settings.scratch)
    finally:
        database.close()


def _add(model: Model, version: Version, *, database: Database, blobs: BlobStore) -> None:
    with tempfile.TemporaryDirectory(prefix="accrete-upgrade-") as name:
        folder = Path(name)
        for file_name, stored in version.files.items():
            if file_name != evaluations.FILE:  # a graph is made without it
                blobs.fetch(stored.sha256, folder / file_name)
        loaded = load_version(folder)
        pixels = evaluation_pixels(model, version, database=database, blobs=blobs)
        path = folder / EXECUTABLE
        write_executable(path, loaded.network, loaded.transform, pixels=pixels)
        size = path.stat().st_size
        file = StoredFile(sha256=blobs.put_file(path), bytes=size)
    blobs.sync()
    with database.write() as connection:
        versions.add_file(connection, version, EXECUTABLE, file, exists=blobs.exists)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
