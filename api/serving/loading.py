"""Loading versions: fetched, checked and warmed; several at a time, each once for all requests that wait for it."""

import asyncio
import gc
import logging
import math
import queue
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from api.serving.costs import Costs
from api.serving.execution import Device, Execution, Runtime
from api.serving.minibatches import Batcher
from storage import evaluations, safetext
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.domain import Model, StoredFile, Version
from storage.errors import BlobDamaged, BlobMissing, NotFound, VersionUnloadable
from storage.history import versions
from trainer.networks.manifest import MANIFEST, Manifest, read_manifest

LOADERS = 4  # versions that are loaded at the same time; more wait
REST = 10.0  # a version that did not load is not tried again for so many times the duration of the try …
LEAST_REST_SECONDS, MOST_REST_SECONDS = 1.0, 60.0  # … within these bounds
REMEMBERED_FAILURES = 1000
TRIED = (1, 8, 1, 8)  # images of the minibatches that are computed before a version serves
STOP_SECONDS = 5.0  # given to loads that are under way at the end

Key = tuple[str, int]  # id of a model, number of a version

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Served:
    """A version in memory, ready to compute: an execution on each device, and the queue before them."""

    model: Model  # as it was when the version was loaded
    number: int
    classes: tuple[str, ...]  # in the order of the logits
    labels: tuple[str, ...]  # what these classes are called
    files: tuple[str, ...]  # digests of what it was loaded from
    by_torch: bool  # on one device at least
    batcher: Batcher

    @property
    def key(self) -> Key:
        """Id of the model and number of the version."""
        return self.model.id, self.number

    def named(self, model: Model) -> "Served":
        """The same version with the names that the classes have now."""
        if model.names == self.model.names:
            return self
        return replace(self, model=model, labels=model.names.all(self.classes))


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a version did not load; as text, since an exception would keep the objects of its frames in memory."""

    number: int
    detail: str
    rest_seconds: float
    rests_until: float  # of time.monotonic()

    def error(self) -> VersionUnloadable:
        """The error for a request for the version."""
        return VersionUnloadable(self.detail, version=self.number, retry_after=math.ceil(self.rest_seconds))


class Loader:
    """Loads versions on threads of its own, so that a slow load delays only the requests for that version.

    A version that does not load is not tried again for a while, however often it is asked for.
    """

    def __init__(self, *, database: Database, blobs: BlobStore, devices: Sequence[Device], runtime: Runtime) -> None:
        """Load from ``blobs`` onto every one of ``devices``."""
        self._database, self._blobs = database, blobs
        self._devices, self._runtime = tuple(devices), runtime
        self._guard = threading.Lock()  # of the three attributes below
        self._under_way: dict[Key, Future[Served]] = {}
        self._failures: OrderedDict[Key, _Failure] = OrderedDict()
        self._settled = False  # whether `_settle` has frozen the objects of the first load
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # Daemon threads, unlike a pool's: a blob store that never answers must not keep the process from ending.
        self._threads = [threading.Thread(target=self._work, name=f"loading-{n}", daemon=True) for n in range(LOADERS)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[..., Served], *arguments: Any) -> Future[Served]:
        """Call ``work`` on a loading thread."""
        future: Future[Served] = Future()

        def task() -> None:
            try:
                future.set_result(work(*arguments))
            except BaseException as error:  # noqa: BLE001 - raised by future.result()
                future.set_exception(error)

        self._tasks.put(task)
        return future

    def stop(self) -> None:
        """End the threads after the queued loads; wait `STOP_SECONDS` for them at most."""
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def load(self, model: Model, number: int, *, again: bool = False) -> Served:
        """A version, ready to compute; loaded on this thread, unless another thread loads it already.

        ``again`` also tries a version that failed a short while ago. Raises `VersionNotFound` and `VersionUnloadable`.
        """
        key = (model.id, number)
        with self._guard:
            failure = self._failures.get(key)
            if failure is not None and not again and time.monotonic() < failure.rests_until:
                raise failure.error()
            is_mine = (future := self._under_way.get(key)) is None
            if future is None:
                future = self._under_way[key] = Future()
        if is_mine:
            self._fulfil(future, model, number)
        return future.result()

    def confirm(self, served: Served) -> None:
        """Raise `VersionUnloadable` if files of a version in memory are damaged or missing."""
        with tempfile.TemporaryDirectory(prefix="accrete-version-") as folder:
            try:
                for digest in served.files:
                    self._blobs.fetch(digest, Path(folder) / digest)
            except (BlobDamaged, BlobMissing) as error:
                raise _failure(served.model, served.number, error, seconds=0.0).error() from error
            except Exception:  # the store is unreachable, but the version is in memory and can serve
                log.exception("%s: its files cannot be looked at", served.batcher.name)

    def is_outdated(self, served: Served, version: Version) -> bool:
        """Whether a version in memory would be loaded from other files now, such as a graph that it has gained."""
        return served.files != _digests(self._needed(version.files))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def _fulfil(self, future: "Future[Served]", model: Model, number: int) -> None:
        key, began = (model.id, number), time.monotonic()
        outcome: Served | Exception
        failure: _Failure | None = None
        try:
            outcome = self._load(model, number)
        except (NotFound, SQLAlchemyError) as error:
            outcome = error
        except Exception as error:
            failure = _failure(model, number, error, seconds=time.monotonic() - began)
            outcome = failure.error()
            before = self._failures.get(key)
            if before is None or before.detail != failure.detail:  # else it was logged at the last try
                log.exception("%s", failure.detail)
        with self._guard:
            del self._under_way[key]
            self._failures.pop(key, None)
            if failure is not None:
                self._failures[key] = failure
                while len(self._failures) > REMEMBERED_FAILURES:
                    self._failures.popitem(last=False)
        if isinstance(outcome, Served):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    def _load(self, model: Model, number: int) -> Served:
        with self._database.read() as connection:
            version = versions.get(connection, model, number)
        needed = self._needed(version.files)
        with tempfile.TemporaryDirectory(prefix="accrete-version-") as name:
            folder = Path(name)
            for file_name, file in needed.items():
                self._blobs.fetch(file.sha256, folder / file_name)
            known = {file_name: file.sha256 for file_name, file in needed.items()}
            _check_form(read_manifest(folder, known=known), model, version)
            # Threads of one device share its copy.
            executions = {device: self._runtime.open(folder, device) for device in set(self._devices)}
        costs = [_tried(execution, model, version) for execution in executions.values()]
        self._settle()
        in_turn = tuple(executions[device] for device in self._devices)
        batcher = Batcher(f"{model.name} version {number}", in_turn, costs[0])
        by_torch = any(self._runtime.graph_of(version.files, device) is None for device in self._devices)
        labels = model.names.all(version.classes)
        return Served(model, number, version.classes, labels, _digests(needed), by_torch, batcher)

    def _needed(self, files: Mapping[str, StoredFile]) -> Mapping[str, StoredFile]:
        """The files that serving reads: the graphs for its devices, or everything where one of them takes torch."""
        graphs = {self._runtime.graph_of(files, device) for device in self._devices}
        named = files.keys() - {evaluations.FILE} if None in graphs else {MANIFEST, *graphs}
        return {name: file for name, file in files.items() if name in named}

    def _settle(self) -> None:
        """Exclude the objects of all imported modules from garbage collection, after the first load.

        They live as long as the process. Each full collection would go through them, and no request is answered
        meanwhile.
        """
        with self._guard:
            first, self._settled = not self._settled, True
        if first:
            gc.collect()
            gc.freeze()


def _digests(files: Mapping[str, StoredFile]) -> tuple[str, ...]:
    return tuple(file.sha256 for file in files.values())


def _failure(model: Model, number: int, error: Exception, *, seconds: float) -> _Failure:
    """The record of a failed try that took ``seconds``."""
    rest_seconds = min(max(REST * seconds, LEAST_REST_SECONDS), MOST_REST_SECONDS)
    reason = safetext.message(str(error)) or type(error).__name__
    detail = f"Version {number} of model {model.name!r} cannot be loaded: {reason}"
    return _Failure(number, detail, rest_seconds, time.monotonic() + rest_seconds)


def _check_form(manifest: Manifest, model: Model, version: Version) -> None:
    """Raise ValueError if the classes, channels or size in a version's files are not those in the database."""
    found = (manifest.labels, manifest.channels, manifest.image_size)
    expected = (version.classes, model.channels, model.image_size)
    if found != expected:
        raise ValueError(f"its files say (classes, channels, pixels) {found}, not {expected}")


def _tried(execution: Execution, model: Model, version: Version) -> Costs:
    """The costs of minibatches, of some that were tried.

    The first computation is slower than later ones, so no request has to wait for it. Whatever else the machine does
    meanwhile makes a minibatch slower and none faster, so the fastest of each size counts. Raises ValueError if the
    probabilities have the wrong shape or are not finite.
    """
    fastest: dict[int, float] = {}
    for images in TRIED:
        pixels = np.full((images, model.channels, model.image_size, model.image_size), 128, np.uint8)
        began = time.monotonic()
        probabilities = execution.probabilities([pixels])[0]
        seconds = time.monotonic() - began
        fastest[images] = min(seconds, fastest.get(images, seconds))
        if probabilities.shape != (images, len(version.classes)) or not bool(np.isfinite(probabilities).all()):
            raise ValueError("what it computes are no probabilities of its classes")
    costs = Costs()
    for images, seconds in fastest.items():
        costs.note(images, seconds)
    return costs


async def outcome(future: "Future[Served]") -> Served:
    """The version that a loading thread loads; the load goes on if this wait is cancelled."""
    waited = asyncio.wrap_future(future)
    waited.add_done_callback(lambda done: done.cancelled() or done.exception())  # exception() marks it as retrieved
    return await asyncio.shield(waited)
