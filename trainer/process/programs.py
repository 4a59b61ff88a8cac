"""`python -m trainer.process.programs`: makes the files network.pt2 that somebody has asked for, one after another.

The row of the wish is the truth (`storage.history.exports`): a process that is killed leaves it open, and the next one
takes it up. A blob that it has stored already stays, at most, until `accrete gc`.
"""

import argparse
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from storage import evaluations
from storage.blobs.opening import open_blobs
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.domain import Export, Model, StoredFile, Version
from storage.errors import BlobDamaged, BlobMissing
from storage.history import exports, models, versions
from storage.maintenance.disposal import dispose
from storage.settings import Settings, settings_of_process
from trainer.export import Disagreement, NotExportable, write_program
from trainer.networks import load_version
from trainer.networks.description import description
from trainer.networks.manifest import PROGRAM, WEIGHTS
from trainer.process.attachment import end_with_parent
from trainer.process.resources import yield_processor
from trainer.process.stored_pixels import evaluation_pixels
from trainer.process.upgrade import NICENESS


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what was asked for, and say what was done; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m trainer.process.programs", description="Settings are ACCRETE_….")
    parser.add_argument("--attached", action="store_true", help="end when standard input is closed")
    asked = parser.parse_args(arguments)
    settings = settings_of_process()
    if asked.attached:
        threading.Thread(target=end_with_parent, daemon=True).start()
    yield_processor(NICENESS)
    torch.set_num_threads(1)
    for line in make_programs(settings):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    return 0


def make_programs(settings: Settings) -> Iterator[str]:
    """Make every file that was asked for and that no other process makes; a line about each."""
    database, blobs = Database(settings.database), open_blobs(settings.blobs)
    try:
        with database.read() as connection:
            waiting = exports.waiting(connection)
        for asked in waiting:
            with database.write() as connection:
                begun = exports.begin(
                    connection, asked, lease_seconds=settings.lease_seconds, most_attempts=settings.max_crashes
                )
            if begun:
                with _leased(asked, database, settings):
                    yield _outcome(asked, database, blobs)
        dispose(database=database, blobs=blobs, scratch=settings.scratch)
    finally:
        database.close()


def _outcome(asked: Export, database: Database, blobs: BlobStore) -> str:
    """Make one file, or record why there will be none; a line about it."""
    with database.read() as connection:
        model = models.find(connection, asked.model_id)
        version = versions.find(connection, asked.model_id, asked.version)
    if model is None or version is None:
        return f"version {asked.version} of a model was deleted"
    try:
        if version.deleted_at is not None:
            raise NotExportable("the version was deleted")
        _make(asked, model, version, database=database, blobs=blobs)
    except (NotExportable, Disagreement, ValueError, KeyError, RuntimeError) as error:
        reason = str(error)
    except (BlobDamaged, BlobMissing) as error:
        reason = error.detail
    else:
        return f"{model.name} version {asked.version}: {PROGRAM} added"
    with database.write() as connection:
        exports.fail(connection, asked, reason)
    return f"{model.name} version {asked.version}: no {PROGRAM}, because {reason}"


def _make(asked: Export, model: Model, version: Version, *, database: Database, blobs: BlobStore) -> None:
    def described(agreement: Mapping[str, Any]) -> Mapping[str, str]:
        digests = {"weights_sha256": version.files[WEIGHTS].sha256, "data_sha256": version.data_digest}
        return description(
            model=model.name,
            number=version.number,
            tasks=model.names.version(version).tasks,
            transform=loaded.transform.to_json(),
            agreement=agreement,
            digests=digests,
            created_at=version.created_at.isoformat(),
        )

    with tempfile.TemporaryDirectory(prefix="accrete-program-") as name:
        folder = Path(name)
        for file_name, stored in version.files.items():
            if file_name != evaluations.FILE:
                blobs.fetch(stored.sha256, folder / file_name)
        loaded = load_version(folder)
        pixels = evaluation_pixels(model, version, database=database, blobs=blobs)
        path = folder / PROGRAM
        agreement = write_program(path, loaded.network, loaded.transform, pixels=pixels, describe=described)
        size = path.stat().st_size
        file = StoredFile(sha256=blobs.put_file(path), bytes=size)
    blobs.sync()
    with database.write() as connection:
        if versions.add_file(connection, version, PROGRAM, file, exists=blobs.exists):
            exports.succeed(connection, asked, agreement)


@contextmanager
def _leased(asked: Export, database: Database, settings: Settings) -> Iterator[None]:
    """Renew the lease of a wish meanwhile, so that no other process takes it up."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(settings.heartbeat_seconds):
            with database.write() as connection:
                exports.renew(connection, asked, lease_seconds=settings.lease_seconds)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
