"""The loaded versions: which one answers for a model, and others that were asked for by number."""

import gc
import logging
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from sqlalchemy.exc import SQLAlchemyError

from api.serving.executions import Planner
from api.serving.lanes import Batcher
from api.serving.measures import Measures
from storage import models, versions
from storage.blobs import BlobStore
from storage.database import Database
from storage.domain import Model, Version
from storage.errors import NoVersionYet
from trainer.networks import LoadedVersion, load_version

SWAP_PAUSE_SECONDS = 0.1  # in which requests that had to wait while a version is prepared are served

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Served:
    """A version in memory, ready to compute: a plan for each device, and the queue before them."""

    model: Model  # as it was when the version was loaded
    number: int
    labels: tuple[str, ...]  # in the order of the logits
    batcher: Batcher


class Registry:
    """Bounded: least recently asked for goes first, the current version of a model in use never.

    A promotion is noticed by looking at the database; the new version is loaded, checked and warmed beside the old one,
    and the switch is one assignment, so requests go on with the version they began with. What has been looked up stays
    at hand: a prediction does not ask the database.
    """

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        devices: Sequence[torch.device],
        planner: Planner,
        measures: Measures,
        capacity: int,
        watch_seconds: float,
    ) -> None:
        """Keep ``capacity`` versions beside the current ones; look for promotions every ``watch_seconds``."""
        self._database, self._blobs = database, blobs
        self._devices, self._planner, self._measures = tuple(devices), planner, measures
        self._capacity, self._watch_seconds = capacity, watch_seconds
        self._models: dict[str, Model] = {}  # by name, as of the last look
        self._current: dict[str, Served] = {}  # by id of the model
        self._others: OrderedDict[tuple[str, int], Served] = OrderedDict()
        self._loading = threading.Lock()
        self._looked = threading.Condition()  # guards the two that follow
        self._looks = 0  # for promotions, that have ended
        self._is_looking = False
        self._asked = threading.Event()  # not to wait until the next look is due
        self._stopped = threading.Event()
        self._preloaded = threading.Event()
        self._settled = False  # whether what the first version brought with it is out of the collector's sight
        self._watcher = threading.Thread(target=self._watch, name="promotions", daemon=True)
        self.faults: Mapping[str, str] = {}  # by model name: why its current version is not the one in service

    @property
    def is_warm(self) -> bool:
        """Whether the versions that are loaded at the start have been."""
        return self._preloaded.is_set()

    def start(self) -> None:
        """Load what is most likely asked for, then look for promotions."""
        self._watcher.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stopped.set()
        self._asked.set()
        self._watcher.join()

    def known(self, name: str) -> Model | None:
        """The model of that name, if it is at hand."""
        return self._models.get(name)

    def ready(self, name: str, number: int | None) -> Served | None:
        """The version in service, or of that number, if it is at hand; costs next to nothing."""
        if (model := self._models.get(name)) is None:
            return None
        current = self._current.get(model.id)
        if number is None or (current is not None and current.number == number):
            return current
        if (served := self._others.get((model.id, number))) is not None:
            with suppress(KeyError):  # it went just now; no lock, since this is the event loop, and a load takes long
                self._others.move_to_end((model.id, number))
        return served

    def load(self, name: str, number: int | None) -> Served:
        """The same, loaded where it has to be; raises `ModelNotFound`, `NoVersionYet` and `VersionNotFound`."""
        with self._database.read() as connection:
            model = models.get(connection, name)
        if number is None and model.current is None:
            raise NoVersionYet(
                f"Model {name!r} has no version yet: POST images of at least two classes to "
                f"/v1/models/{name}/increments and wait until that increment has succeeded."
            )
        return self._load_current(model) if number is None else self._load_other(model, number)

    def loaded(self) -> list[Served]:
        """Every version in memory."""
        return [*self._current.values(), *self._others.values()]

    def refresh(self) -> None:
        """Have every model in use brought to its current version now; returns when that was tried.

        One that cannot be loaded leaves the old one in service.
        """
        with self._looked:
            wanted = self._looks + (2 if self._is_looking else 1)  # a look that has begun may have missed the promotion
            self._asked.set()
            self._looked.wait_for(lambda: self._looks >= wanted or self._stopped.is_set())

    def forget(self, model_id: str, number: int | None = None) -> None:
        """Drop a deleted version, or all of a deleted model's."""
        with self._loading:
            self._drop_others([key for key in list(self._others) if key == (model_id, number)])
            if number is None:
                self._drop(model_id)

    def _load_current(self, model: Model) -> Served:
        with self._loading:
            if (served := self._current.get(model.id)) is None:
                assert model.current is not None
                served = self._load(model, model.current)
                self._enter(served)
        return served

    def _load_other(self, model: Model, number: int) -> Served:
        current = self._current.get(model.id)
        if current is not None and current.number == number:
            return current
        key = (model.id, number)
        with self._loading:
            if (served := self._others.get(key)) is None:
                served = self._others[key] = self._load(model, number)
                self._models.setdefault(model.name, model)
            self._others.move_to_end(key)
            while len(self._others) > self._capacity:
                self._others.popitem(last=False)
        return served

    def _enter(self, served: Served) -> None:
        model = served.model
        self._models[model.name] = model
        self._current[model.id] = served
        self._measures.current_version.labels(model.name).set(served.number)

    def _drop_others(self, keys: Sequence[tuple[str, int]]) -> None:
        for key in keys:
            self._others.pop(key, None)

    def _drop(self, model_id: str) -> None:
        self._current.pop(model_id, None)
        self._drop_others([key for key in list(self._others) if key[0] == model_id])
        for name in [name for name, model in self._models.items() if model.id == model_id]:
            del self._models[name]
            self._measures.forget(name)

    def _refresh(self) -> None:
        with self._database.read() as connection:
            used = {model.id for model in list(self._models.values())}
            present = {model.id: model for model in models.of_ids(connection, used)}
            deleted = [key for key in list(self._others) if not versions.is_there(connection, *key)]
        if deleted:
            with self._loading:
                self._drop_others(deleted)
        faults: dict[str, str] = {}
        for model_id in used:
            model = present.get(model_id)
            if model is None or model.current is None:
                with self._loading:
                    self._drop(model_id)
                continue
            serving = self._current.get(model_id)
            if serving is None or serving.number == model.current:  # None: of the model only others were asked for
                continue
            began = time.monotonic()
            try:
                with self._loading:
                    served = self._load(model, model.current, pause_seconds=SWAP_PAUSE_SECONDS)
            except Exception as error:  # whatever it is, the old version serves on and the look for promotions goes on
                faults[model.name] = f"version {model.current} cannot be loaded: {error}"
                if faults[model.name] != self.faults.get(model.name):
                    self._measures.swap_failures.labels(model.name).inc()
                    log.exception("%s: %s", model.name, faults[model.name])
                continue
            with self._loading:
                if model_id in self._current:  # else it was deleted by a request meanwhile
                    self._enter(served)
            seconds = time.monotonic() - began
            self._measures.swap_seconds.observe(seconds)
            log.info("%s: version %d takes over from %d, %.2f s", model.name, served.number, serving.number, seconds)
        self.faults = faults

    def _watch(self) -> None:
        try:
            self._preload()
        finally:
            self._preloaded.set()
        try:
            self._look_again_and_again()
        finally:
            with self._looked:
                self._stopped.set()
                self._looked.notify_all()  # nobody shall wait for a look that does not come

    def _look_again_and_again(self) -> None:
        while not self._stopped.is_set():
            self._asked.wait(self._watch_seconds)
            with self._looked:
                self._asked.clear()
                self._is_looking = True
            try:
                self._refresh()
            except SQLAlchemyError as error:  # away for a while; what is loaded goes on serving
                log.warning("promotions cannot be looked for: %s", error)
            with self._looked:
                self._is_looking = False
                self._looks += 1
                self._looked.notify_all()

    def _preload(self) -> None:
        """Load some models before they are asked for; what cannot be loaded says so when it is."""
        try:
            with self._database.read() as connection:
                likely = models.lately_taught(connection, limit=self._capacity)
        except SQLAlchemyError as error:
            log.warning("no version is loaded beforehand: %s", error)
            return
        for model in likely:
            if self._stopped.is_set():
                return
            try:
                self._load_current(model)
            except Exception:
                log.exception("%s: version %s is not loaded beforehand", model.name, model.current)

    def _load(self, model: Model, number: int, *, pause_seconds: float = 0.0) -> Served:
        with self._database.read() as connection:
            version = versions.get(connection, model, number)
        copies = self._planner.aside(self._copies, version).result()
        made = {
            device: self._planner.plan(copy, device, pause_seconds=pause_seconds) for device, copy in copies.items()
        }
        plans = [made[device] for device in self._devices]
        if not self._settled:
            # torch's modules hold half a million objects, which a full collection would go through again and again:
            # 0.3 s each time, in which nothing is answered. They stay for good, and so need not be looked at.
            gc.collect()
            gc.freeze()
            self._settled = True
        batcher = Batcher(f"{model.name} version {number}", tuple(plans))
        return Served(model, number, plans[0].version.labels, batcher)

    def _copies(self, version: Version) -> dict[torch.device, LoadedVersion]:
        """A version's files, checked and loaded once for each device: lanes on one device share theirs."""
        with tempfile.TemporaryDirectory(prefix="accrete-version-") as folder:
            for name, file in version.files.items():
                self._blobs.fetch(file.sha256, Path(folder) / name)
            return {device: load_version(Path(folder)) for device in set(self._devices)}
