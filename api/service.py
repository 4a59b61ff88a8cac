"""What requests use: settings, storage, the serving engine and the broker."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.keys.keyring import KeyRing
from api.measures import Measures
from api.serving.engine import Engine
from api.serving.records import Recorder
from api.views.feed import Feed
from api.views.thumbnails import Thumbnails
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.maintenance.disposal import dispose
from storage.settings import Settings
from storage.waking import BrokerUnreachable, Waker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """Built once per process by `api.app`."""

    settings: Settings
    database: Database
    blobs: BlobStore
    broker: Waker
    measures: Measures
    engine: Engine
    recorder: Recorder
    keyring: KeyRing
    feed: Feed
    thumbnails: Thumbnails
    draining: asyncio.Event  # set when the process was asked to end …
    ending: asyncio.Event  # … and when it takes no more connections

    def dispose(self) -> None:
        """Delete the blobs that a committed transaction released; a worker's sweep deletes those that fail now."""
        dispose(database=self.database, blobs=self.blobs, scratch=self.settings.scratch)

    def wake_worker(self, increment_id: str) -> None:
        """Tell the workers about an increment whose row is committed; without Redis their sweep will find it."""
        try:
            self.broker.wake(increment_id)
        except BrokerUnreachable as error:
            log.warning("increment %s waits for the sweep, Redis cannot be reached: %s", increment_id, error)


async def _service(request: Request) -> Service:  # async: FastAPI runs a plain function on another thread
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
