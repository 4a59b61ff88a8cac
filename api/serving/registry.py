"""The loaded versions: which one answers for a model, and others that were asked for by number."""

import logging
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from storage import models, versions
from storage.blobs import BlobStore
from storage.database import Database
from storage.domain import Model
from storage.errors import NoVersionYet
from trainer.networks import LoadedVersion, load_version

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A version in memory."""

    model_id: str
    number: int
    loaded: LoadedVersion


class Registry:
    """Bounded: least recently asked for goes first, the current version of a model in use never.

    A promotion is noticed by looking at the database; the new version is loaded beside the old one, and the switch is
    one assignment, so requests go on with the version they began with.
    """

    def __init__(self, *, database: Database, blobs: BlobStore, capacity: int, watch_seconds: float) -> None:
        """Keep ``capacity`` versions beside the current ones; look for promotions every ``watch_seconds``."""
        self._database = database
        self._blobs = blobs
        self._capacity = capacity
        self._watch_seconds = watch_seconds
        self._current: dict[str, Served] = {}
        self._others: OrderedDict[tuple[str, int], Served] = OrderedDict()
        self._loading = threading.Lock()
        self._refreshing = threading.Lock()  # a slow look must not take back what a later one has seen
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="promotions", daemon=True)
        self.faults: Mapping[str, str] = {}  # by model name: why its current version is not the one in service

    def start(self) -> None:
        """Begin to look for promotions."""
        self._watcher.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stopped.set()
        self._watcher.join()

    def current(self, model: Model) -> Served:
        """The version in service; loads it if the model was not asked for before. Raises `NoVersionYet`."""
        served = self._current.get(model.id)
        if served is not None:
            return served
        if model.current is None:
            raise NoVersionYet(
                f"Model {model.name!r} has no version yet: POST images of at least two classes to "
                f"/v1/models/{model.name}/increments and wait until that increment has succeeded."
            )
        with self._loading:
            if (served := self._current.get(model.id)) is None:
                served = self._current[model.id] = self._load(model, model.current)
        return served

    def version(self, model: Model, number: int) -> Served:
        """A version asked for by its number; raises `VersionNotFound`."""
        served = self._current.get(model.id)
        if served is not None and served.number == number:
            return served
        key = (model.id, number)
        with self._loading:
            if (served := self._others.get(key)) is None:
                served = self._others[key] = self._load(model, number)
            self._others.move_to_end(key)
            while len(self._others) > self._capacity:
                self._others.popitem(last=False)
        return served

    def refresh(self) -> None:
        """Bring every model in use to its current version; one that cannot be loaded leaves the old one in service."""
        with self._refreshing:
            self._refresh()

    def _refresh(self) -> None:
        with self._database.read() as connection:
            present = {model_id: models.find(connection, model_id) for model_id in list(self._current)}
        faults: dict[str, str] = {}
        for model_id, model in present.items():
            if model is None or model.current is None:
                self._current.pop(model_id, None)
                continue
            serving = self._current.get(model_id)
            if serving is None or serving.number == model.current:  # None: deleted by another request just now
                continue
            try:
                with self._loading:
                    served = self._load(model, model.current)
            except Exception as error:  # whatever it is, the old version serves on and the look for promotions goes on
                faults[model.name] = f"version {model.current} cannot be loaded: {error}"
                if faults[model.name] != self.faults.get(model.name):
                    log.exception("%s: %s", model.name, faults[model.name])
                continue
            log.info("%s: version %d takes over from %d", model.name, served.number, serving.number)
            self._current[model_id] = served
        self.faults = faults

    def forget(self, model_id: str, number: int | None = None) -> None:
        """Drop a deleted version, or all of a deleted model's."""
        with self._loading:
            for key in [key for key in self._others if key[0] == model_id and number in {None, key[1]}]:
                del self._others[key]
            if number is None:
                self._current.pop(model_id, None)

    def _watch(self) -> None:
        while not self._stopped.wait(self._watch_seconds):
            try:
                self.refresh()
            except SQLAlchemyError as error:  # away for a while; what is loaded goes on serving
                log.warning("promotions cannot be looked for: %s", error)

    def _load(self, model: Model, number: int) -> Served:
        with self._database.read() as connection:
            version = versions.get(connection, model, number)
        with tempfile.TemporaryDirectory(prefix="accrete-version-") as folder:
            for name, file in version.files.items():
                self._blobs.fetch(file.sha256, Path(folder) / name)
            return Served(model.id, number, load_version(Path(folder)))
