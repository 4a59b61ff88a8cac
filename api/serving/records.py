"""Prediction records, written behind: an answer waits for the database only if the request asks for it."""

import logging
import queue
import random
import threading
from collections.abc import Sequence
from itertools import groupby

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from api.measures import Measures
from api.serving.kept_images import KeptImages, Recording
from storage.database.engine import Database
from storage.domain import KeepPredictions, Model, Prediction
from storage.errors import ModelNotFound
from storage.history import models
from storage.requests import predictions

CAPACITY = 10_000  # records waiting to be written; beyond it predictions are answered without a record
CAPACITY_BYTES = 256 << 20  # of memory that they take, about: 64 images with each of 10,000 classes take 86 MB
IMAGES_BYTES = CAPACITY_BYTES // 2  # beyond it records wait without their images
BATCH = 500
PAUSE_SECONDS = 0.05  # lets records gather, so that many share a commit

log = logging.getLogger(__name__)


class Recorder:
    """One thread that writes prediction records, at best effort, from a bounded queue."""

    def __init__(self, database: Database, measures: Measures, *, share: float, kept_images: KeptImages) -> None:
        """Once started, write records of a ``share`` of the predictions, 0 … 1, into ``database``."""
        self._database, self._measures, self._share, self._kept_images = database, measures, share, kept_images
        self._waiting: queue.Queue[Recording] = queue.Queue(CAPACITY)
        self._pending: dict[str, Prediction] = {}  # accepted and not yet committed, by id
        self._bytes = 0  # of the pending
        self._counting = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write_forever, name="records", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write the waiting records, then end the thread."""
        self._stopped.set()
        self._thread.join()

    def chooses(self) -> bool:
        """Whether the next prediction is among the share of which a record is kept."""
        return self._share >= 1 or random.random() < self._share

    def add(self, record: Prediction, images: Sequence[bytes] = ()) -> bool:
        """Take a record to be written soon; False when too many wait already.

        ``images`` are kept beside it, unless too many wait already or they are more than a model keeps.
        """
        recording = Recording(record, images)
        if images and not self._has_room(recording):
            self._measures.images_lost.inc(len(images))
            recording = Recording(record)
        if not self._hold(recording):
            self._measures.records_lost.inc()
            return False
        try:
            self._waiting.put_nowait(recording)
        except queue.Full:
            self._let_go(recording)
            self._measures.records_lost.inc()
            return False
        return True

    def add_now(self, record: Prediction, images: Sequence[bytes]) -> None:
        """Return when a record is committed, and its images if the model keeps them; raises `ModelNotFound`."""
        recording = Recording(record, images)
        with self._database.write() as connection:
            model = models.by_id(connection, record.model_id)
            if not self._keeps(recording, model):
                predictions.add(connection, [record])
                return
        self._kept_images.write([recording])

    def pending(self, prediction_id: str) -> Prediction | None:
        """A record that was accepted but is not in the database yet."""
        return self._pending.get(prediction_id)

    def _keeps(self, recording: Recording, model: Model) -> bool:
        """Whether a model keeps the images of a recording: they are not more than it keeps at all."""
        fits = recording.bytes_of_images <= self._kept_images.most_bytes
        return bool(recording.images) and model.keep_predictions is KeepPredictions.ALL and fits

    def _has_room(self, recording: Recording) -> bool:
        size = recording.bytes_of_images
        return size <= self._kept_images.most_bytes and self._bytes + size <= IMAGES_BYTES

    def _hold(self, recording: Recording) -> bool:
        """Add a record to the pending ones, if there is room; whether there was."""
        size = _size(recording)
        with self._counting:
            if self._bytes + size > CAPACITY_BYTES:
                return False
            self._bytes += size
            self._pending[recording.record.id] = recording.record
        return True

    def _let_go(self, recording: Recording) -> None:
        with self._counting:
            if self._pending.pop(recording.record.id, None) is not None:
                self._bytes -= _size(recording)

    def _write_forever(self) -> None:
        while not (self._stopped.is_set() and self._waiting.empty()):
            batch = self._gather()
            if not batch:
                continue
            left = self._write_with_images([one for one in batch if one.images])
            records = [*left, *(one.record for one in batch if not one.images)]
            try:
                self._write(records)
            except Exception:  # of any kind: the next batch may succeed
                self._measures.records_lost.inc(len(records))
                log.exception("%d prediction records are lost", len(records))
            for recording in batch:
                self._let_go(recording)

    def _write_with_images(self, batch: Sequence[Recording]) -> list[Prediction]:
        """Write records with their images, model by model; returns those to be written without."""
        left: list[Prediction] = []
        for _, group in groupby(sorted(batch, key=_model), key=_model):
            recordings = list(group)
            try:
                self._kept_images.write(recordings)
            except ModelNotFound as error:
                log.info("%d prediction records are dropped: %s", len(recordings), error)
            except (OSError, SQLAlchemyError):  # the store or the database is away or full
                lost = sum(len(one.images) for one in recordings)
                self._measures.images_lost.inc(lost)
                log.exception("%d images of predictions are not kept", lost)
                left += [one.record for one in recordings]
        return left

    def _write(self, batch: list[Prediction]) -> None:
        """Write records; only those that the database refuses are dropped, such as those of a deleted model."""
        try:
            with self._database.write() as connection:
                predictions.add(connection, batch)
        except OperationalError:  # the database is away
            raise
        except SQLAlchemyError as error:
            if len(batch) == 1:
                log.info("prediction record %s is dropped: %s", batch[0].id, error)
                return
            half = len(batch) // 2
            self._write(batch[:half])
            self._write(batch[half:])

    def _gather(self) -> list[Recording]:
        try:
            batch = [self._waiting.get(timeout=0.2)]
        except queue.Empty:
            return []
        self._stopped.wait(PAUSE_SECONDS)
        while len(batch) < BATCH and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        return batch


def _model(recording: Recording) -> str:
    return recording.record.model_id


def _size(recording: Recording) -> int:
    """Bytes that a record takes in memory, about: a tuple with a float for each label, and its images."""
    ranked = sum(100 + sum(len(label) + 125 for label, _ in one) for one in recording.record.predictions)
    return 500 + ranked + recording.bytes_of_images
