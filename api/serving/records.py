"""Prediction records, written behind: an answer waits for the database only if the request asks for it."""

import logging
import queue
import random
import threading

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from api.measures import Measures
from storage.database.engine import Database
from storage.domain import Prediction
from storage.requests import predictions

CAPACITY = 10_000  # records waiting to be written; beyond it predictions are answered without a record
CAPACITY_BYTES = 256 << 20  # of memory that they take, about: 64 images with each of 10,000 classes take 86 MB
BATCH = 500
PAUSE_SECONDS = 0.05  # lets records gather, so that many share a commit

log = logging.getLogger(__name__)


class Recorder:
    """One thread that writes prediction records, at best effort, from a bounded queue."""

    def __init__(self, database: Database, measures: Measures, *, share: float) -> None:
        """Once started, write records of a ``share`` of the predictions, 0 … 1, into ``database``."""
        self._database, self._measures, self._share = database, measures, share
        self._waiting: queue.Queue[Prediction] = queue.Queue(CAPACITY)
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

    def add(self, record: Prediction) -> bool:
        """Take a record to be written soon; False when too many wait already."""
        if not self._hold(record):
            self._measures.records_lost.inc()
            return False
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self._let_go(record)
            self._measures.records_lost.inc()
            return False
        return True

    def pending(self, prediction_id: str) -> Prediction | None:
        """A record that was accepted but is not in the database yet."""
        return self._pending.get(prediction_id)

    def _hold(self, record: Prediction) -> bool:
        """Add a record to the pending ones, if there is room; whether there was."""
        size = _size(record)
        with self._counting:
            if self._bytes + size > CAPACITY_BYTES:
                return False
            self._bytes += size
            self._pending[record.id] = record
        return True

    def _let_go(self, record: Prediction) -> None:
        with self._counting:
            if self._pending.pop(record.id, None) is not None:
                self._bytes -= _size(record)

    def _write_forever(self) -> None:
        while not (self._stopped.is_set() and self._waiting.empty()):
            batch = self._gather()
            if not batch:
                continue
            try:
                self._write(batch)
            except Exception:  # of any kind: the next batch may succeed
                self._measures.records_lost.inc(len(batch))
                log.exception("%d prediction records are lost", len(batch))
            for record in batch:
                self._let_go(record)

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

    def _gather(self) -> list[Prediction]:
        try:
            batch = [self._waiting.get(timeout=0.2)]
        except queue.Empty:
            return []
        self._stopped.wait(PAUSE_SECONDS)
        while len(batch) < BATCH and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        return batch


def _size(record: Prediction) -> int:
    """Bytes that a record takes in memory, about: a tuple with a float for each label."""
    return 500 + sum(100 + sum(len(label) + 125 for label, _ in one) for one in record.predictions)
