"""Records of predictions with their images, for the models that keep them."""

from collections.abc import Sequence
from dataclasses import dataclass

from storage.blobs.store import BlobStore
from storage.database import locks
from storage.database.engine import Database
from storage.domain import KeptImage, Prediction
from storage.history import models
from storage.material import kept, references
from storage.requests import predictions


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A record to be written, and the image files to be kept beside it."""

    record: Prediction
    images: Sequence[bytes] = ()  # none, or one for each of the record's digests

    @property
    def bytes_of_images(self) -> int:
        """How much the images take, in memory and in the store."""
        return sum(map(len, self.images))


class KeptImages:
    """Writes records together with their images; of each model the latest are kept, up to a number of bytes."""

    def __init__(self, database: Database, blobs: BlobStore, *, most_bytes: int) -> None:
        """Keep at most ``most_bytes`` of each model."""
        self._database, self._blobs, self.most_bytes = database, blobs, most_bytes

    def write(self, recordings: Sequence[Recording]) -> None:
        """Write records of one model and keep their images, in one transaction; raises `ModelNotFound`.

        Before a blob is stored, its name is on the list of those to be deleted unless something refers to them. So
        what a killed process has stored does not stay.
        """
        contents = {
            digest: data
            for one in recordings
            for digest, data in zip(one.record.digests or (), one.images, strict=bool(one.images))
        }
        with self._database.write() as connection:
            references.release(connection, contents)
        for data in contents.values():
            self._blobs.put(data)
        self._blobs.sync()
        model_id = recordings[0].record.model_id
        with self._database.write() as connection:
            locks.lock_model(connection, model_id)  # before the records, which lock a part of the model's row
            models.by_id(connection, model_id)
            predictions.add(connection, [one.record for one in recordings])
            images = [image for one in recordings for image in _images(one)]
            for deleted in kept.add(connection, images, most_bytes=self.most_bytes, exists=self._blobs.exists):
                self._blobs.put(contents[deleted])
            self._blobs.sync()


def _images(recording: Recording) -> list[KeptImage]:
    record = recording.record
    return [
        KeptImage(record.id, position, record.model_id, digest, len(data), record.created_at)
        for position, (digest, data) in enumerate(zip(record.digests or (), recording.images, strict=True))
    ]
