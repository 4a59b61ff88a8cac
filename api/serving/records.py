"""Prediction records, written behind: an answer never waits for the database unless it is asked to."""

import logging
import queue
import random
import threading

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from api.serving.measures import Measures
from storage import predictions
from storage.database import Database
from storage.domain import Prediction

CAPACITY = 10_000  # records waiting to be written; beyond it answers go out without one
BATCH = 500
PAUSE_SECONDS = 0.05  # lets records gather, so that many share a commit

log = logging.getLogger(__name__)


class Recorder:
    """One thread that writes what was predicted; best effort, bounded."""

    def __init__(self, database: Database, measures: Measures, *, share: float) -> None:
        """Write this share of the records into ``database`` once started."""
        self._database, self._measures, self._share = database, measures, share
        self._waiting: queue.Queue[Prediction] = queue.Queue(CAPACITY)
        self._pending: dict[str, Prediction] = {}  # accepted and not yet committed, by id
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write_forever, name="records", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, then end."""
        self._stopped.set()
        self._thread.join()

    def add(self, record: Prediction) -> bool:
        """Take a record to be written soon; False when it is not among the share, or when too many wait already."""
        if self._share < 1 and random.random() >= self._share:
            return False
        self._pending[record.id] = record
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            del self._pending[record.id]
            self._measures.records_lost.inc()
            return False
        return True

    def pending(self, prediction_id: str) -> Prediction | None:
        """A record that was accepted but is not in the database yet."""
        return self._pending.get(prediction_id)

    def _write_forever(self) -> None:
        while not (self._stopped.is_set() and self._waiting.empty()):
            batch = self._gather()
            if not batch:
                continue
            self._write(batch)
            for record in batch:
                self._pending.pop(record.id, None)

    def _write(self, batch: list[Prediction]) -> None:
        try:
            with self._database.write() as connection:
                predictions.add(connection, batch)
        except IntegrityError as error:  # a model was deleted meanwhile: only its own records go with it
            if len(batch) == 1:
                log.info("prediction record %s is dropped: %s", batch[0].id, error.orig)
                return
            for record in batch:
                self._write([record])
        except SQLAlchemyError:
            self._measures.records_lost.inc(len(batch))
            log.exception("%d prediction records are lost", len(batch))

    def _gather(self) -> list[Prediction]:
        try:
            batch = [self._waiting.get(timeout=0.2)]
        except queue.Empty:
            return []
        self._stopped.wait(PAUSE_SECONDS)
        while len(batch) < BATCH and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        return batch
