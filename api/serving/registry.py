"""The loaded versions: which one answers for a model, and others that were asked for by number."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress

import anyio.to_thread
from sqlalchemy.exc import SQLAlchemyError

from api.measures import Measures
from api.serving.execution import memory
from api.serving.faults import Fault, Faults
from api.serving.loading import Key, Loader, Served, outcome
from storage.database.engine import Database
from storage.domain import Model
from storage.errors import NotFound, NoVersionYet, VersionUnloadable
from storage.history import models, versions

PRELOAD_SECONDS = 60.0  # at most, for which readiness waits for the versions that are loaded at the start

Load = Callable[[Model, int | None], Served]
log = logging.getLogger(__name__)


class Registry:
    """The versions in service of models in use, and a bounded number of others: the least recently used goes first.

    A promotion is noticed by polling the database. The new version is loaded, checked and warmed beside the old one.
    The switch is one assignment, so a request ends with the version it began with. If the version in service does not
    load, a stand-in answers in its place, and the load is tried again. Models are cached: a prediction does not query
    the database.
    """

    def __init__(
        self, *, database: Database, loader: Loader, measures: Measures, capacity: int, watch_seconds: float
    ) -> None:
        """Keep ``capacity`` versions beside those in service; look for promotions every ``watch_seconds``."""
        self._database, self._loader, self._measures = database, loader, measures
        self._capacity, self._watch_seconds = capacity, watch_seconds
        self._guard = threading.Lock()  # of all changes to the attributes below; never held during a load
        self._models: dict[str, Model] = {}  # by name, as of the last look
        self._current: dict[str, Served] = {}  # what answers, by id of the model
        self._others: OrderedDict[Key, Served] = OrderedDict()
        self._faults = Faults(measures)
        self._tasks: dict[tuple[str, str, int | None], Future[Served]] = {}  # loads under way on the loader's threads
        self._stopped = threading.Event()
        self._preloading: list[Future[Served]] | None = None
        self._started_at = 0.0
        self._watcher = threading.Thread(target=self._watch, name="promotions", daemon=True)

    @property
    def is_warm(self) -> bool:
        """Whether the loads of the start are done, or have taken more than `PRELOAD_SECONDS`."""
        if self._started_at and time.monotonic() - self._started_at > PRELOAD_SECONDS:
            return True
        return self._preloading is not None and all(future.done() for future in self._preloading)

    @property
    def faults(self) -> Mapping[str, str]:
        """By model name: why its current version is not the one that answers."""
        with self._guard:
            return self._faults.told({model_id: served.number for model_id, served in self._current.items()})

    def start(self) -> None:
        """Begin to load the models taught last, and to look for promotions."""
        self._started_at = time.monotonic()
        self._watcher.start()

    def stop(self) -> None:
        """Stop polling, and the loader."""
        self._stopped.set()
        self._watcher.join()
        self._loader.stop()

    def known(self, name: str) -> Model | None:
        """The model of that name, if it is cached."""
        return self._models.get(name)

    def ready(self, name: str, number: int | None) -> Served | None:
        """The version that answers for a model, or the one of that number, if it is in memory; fast, without I/O."""
        if (model := self._models.get(name)) is None:
            return None
        current = self._current.get(model.id)
        if number is None or (current is not None and current.number == number):
            return current
        if (served := self._others.get((model.id, number))) is not None:
            with suppress(KeyError):  # it was removed just now; the event loop must not wait for a lock
                self._others.move_to_end((model.id, number))
        return served

    async def load(self, name: str, number: int | None) -> Served:
        """The version that `ready` looks for, loaded if necessary; cancelling the wait does not stop the load.

        Raises `ModelNotFound`, `NoVersionYet`, `VersionNotFound` and `VersionUnloadable`.
        """
        asked = await anyio.to_thread.run_sync(self._ask, name, number, abandon_on_cancel=True)
        return await outcome(asked)

    async def prepared(self, model: Model, number: int) -> Served:
        """A version, loaded, checked and warmed to be put into service, from its files as they are now.

        Raises `VersionNotFound` and `VersionUnloadable`.
        """
        if (served := self.ready(model.name, number)) is not None and served.model.id == model.id:
            await anyio.to_thread.run_sync(self._loader.confirm, served, abandon_on_cancel=True)
            return served
        return await outcome(self._load_once(self._load_again, model, number))

    def enter(self, served: Served, model: Model) -> None:
        """Let a version answer for a model from now on, unless a later promotion is known already."""
        with self._guard:
            if self._is_overtaken(model):
                return
            self._models[model.name] = model
            self._current[model.id] = served.named(model)
            self._others.pop(served.key, None)
            if served.number == model.current:
                self._faults.end(model.id)
            self._measures.current_version.labels(model.name).set(served.number)

    def rename(self, model: Model) -> None:
        """Let the versions in memory call their classes by the names that the model gives them now."""
        with self._guard:
            if (serving := self._current.get(model.id)) is not None:
                self._current[model.id] = serving.named(model)
            self._others.update({key: one.named(model) for key, one in self._others.items() if key[0] == model.id})

    def loaded(self) -> list[Served]:
        """Every version in memory."""
        return [*self._current.values(), *self._others.values()]

    def forget(self, model_id: str, number: int | None = None) -> None:
        """Drop a deleted version, or all of a deleted model's."""
        with self._guard:
            if number is None:
                self._drop(model_id)
            else:
                self._others.pop((model_id, number), None)

    def _ask(self, name: str, number: int | None) -> "Future[Served]":
        with self._database.read() as connection:
            model = models.get(connection, name)
        if number is None and model.current is None:
            raise NoVersionYet(
                f"Model {name!r} has no version yet: POST images of at least two classes to "
                f"/v1/models/{name}/increments and wait until that increment has succeeded."
            )
        return self._load_once(self._load_current if number is None else self._load_numbered, model, number)

    def _load_once(self, work: Load, model: Model, number: int | None) -> "Future[Served]":
        """Have ``work`` load a version on a loading thread, or join the same load if it is under way."""
        key = (work.__name__, model.id, number)
        with self._guard:
            if (under_way := self._tasks.get(key)) is not None:
                return under_way
            future = self._tasks[key] = self._loader.submit(work, model, number)
        future.add_done_callback(lambda _: self._tasks.pop(key, None))
        return future

    def _load_again(self, model: Model, number: int | None) -> Served:
        assert number is not None
        with self._measures.swap_seconds.time():
            return self._loader.load(model, number, again=True)

    def _load_numbered(self, model: Model, number: int | None) -> Served:
        """Load a version that was asked for by number."""
        assert number is not None
        key = (model.id, number)
        serving = self._current.get(model.id)
        if serving is not None and serving.number == number:
            return serving
        served = self._others.get(key) or self._loader.load(model, number)
        with self._guard:
            self._others[key] = served
            self._others.move_to_end(key)
            self._models.setdefault(model.name, model)
            while len(self._others) > self._capacity:
                self._others.popitem(last=False)
        return served

    def _load_current(self, model: Model, _number: int | None = None) -> Served:
        """Let the current version of a model answer, loaded if necessary; if it does not load, a stand-in."""
        assert model.current is not None
        serving, began = self._current.get(model.id), time.monotonic()
        if serving is not None and serving.number == model.current:
            return serving
        try:
            served = self._others.get((model.id, model.current)) or self._loader.load(model, model.current)
        except VersionUnloadable as error:
            self._note_fault(model, error)
            served = serving or self._substitute(model, error)
        self.enter(served, model)
        if serving is not None and served is not serving:
            self._measures.swap_seconds.observe(seconds := time.monotonic() - began)
            log.info("%s: version %d takes over from %d, %.2f s", model.name, served.number, serving.number, seconds)
        return served

    def _load_anew(self, model: Model, number: int | None) -> Served:
        """Load a version in memory once more, since its files are others now, and let it take its own place."""
        assert number is not None
        served = self._loader.load(model, number)
        with self._guard:
            if (serving := self._current.get(model.id)) is not None and serving.number == number:
                self._current[model.id] = served
            elif served.key in self._others:
                self._others[served.key] = served
        return served

    def _substitute(self, model: Model, error: VersionUnloadable) -> Served:
        """The stand-in: the first predecessor that loads; raises `VersionUnloadable` if none does."""
        for number in self._predecessors(model):
            with suppress(VersionUnloadable, NotFound):
                served = self._others.get((model.id, number)) or self._loader.load(model, number)
                log.error("%s: version %d answers in place of version %s", model.name, number, model.current)
                return served
        raise VersionUnloadable(f"{error.detail} No version before it loads either.", **error.extra)

    def _predecessors(self, model: Model) -> Iterable[int]:
        """Numbers of possible stand-ins: the previous version, the current one's ancestors, then the previous one's."""
        with self._database.read() as connection:
            line = [version.number for version in versions.lineage(connection, model, model.current)][::-1]
            before = [version.number for version in versions.lineage(connection, model, model.previous)][::-1]
        return [number for number in dict.fromkeys([*before[:1], *line, *before]) if number != model.current]

    def _is_overtaken(self, model: Model) -> bool:
        """Whether a later promotion of the model is known; for callers that hold the guard."""
        known = self._models.get(model.name)
        return known is not None and known.id == model.id and known.current_revision > model.current_revision

    def _note_fault(self, model: Model, error: VersionUnloadable) -> None:
        assert model.current is not None
        with self._guard:
            if not self._is_overtaken(model):  # else the version that does not load is in service no more
                self._faults.note(model.id, Fault(model.name, model.current, error.detail))
                self._models.setdefault(model.name, model)

    def _drop(self, model_id: str) -> None:
        self._current.pop(model_id, None)
        self._faults.end(model_id)
        for key in [key for key in list(self._others) if key[0] == model_id]:
            del self._others[key]
        for name in [name for name, model in self._models.items() if model.id == model_id]:
            del self._models[name]
            self._measures.forget(name)

    def _look(self) -> None:
        """Notice promotions and deletions; the versions they need are loaded on other threads."""
        with self._guard:
            used = {model.id for model in self._models.values()} | self._current.keys()
            others = list(self._others)
            by_torch = [served for served in self.loaded() if served.by_torch]
        with self._database.read() as connection:
            present = {model.id: model for model in models.of_ids(connection, used)}
            deleted = [key for key in others if not versions.is_there(connection, *key)]
            found = [(served, versions.find(connection, *served.key)) for served in by_torch]
        for key in deleted:
            self.forget(*key)
        for served, version in found:
            if version is not None and self._loader.is_outdated(served, version):
                self._load_once(self._load_anew, served.model, served.number)
        for model_id in used:
            if (model := present.get(model_id)) is not None:
                self.rename(model)
            if model is None or model.current is None:
                self.forget(model_id)
            elif (serving := self._current.get(model_id)) is not None and serving.number == model.current:
                self.enter(serving, model)
            elif serving is not None or model_id in self._faults:
                self._load_once(self._load_current, model, None)
            else:  # only other versions were asked for
                with self._guard:
                    self._models[model.name] = model

    def _watch(self) -> None:
        self._preloading = self._preload()
        while not self._stopped.wait(self._watch_seconds):
            try:
                self._look()
            except SQLAlchemyError as error:  # unreachable for a while; loaded versions go on serving
                log.warning("promotions cannot be looked for: %s", error)
            memory.give_back()

    def _preload(self) -> "list[Future[Served]]":
        """Begin to load the models taught last; one that does not load is a fault, and is tried again."""
        try:
            with self._database.read() as connection:
                likely = models.recently_trained(connection, limit=self._capacity)
        except SQLAlchemyError as error:
            log.warning("no version is loaded beforehand: %s", error)
            return []
        return [self._load_once(self._load_current, model, None) for model in likely]
