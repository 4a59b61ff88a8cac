"""Predictions: image files or pixels in, probabilities out, always from exactly one version."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api.measures import Measures
from api.serving.decoding import Decoders
from api.serving.execution import Images, Runtime, own_devices, serving_devices
from api.serving.loading import Loader, Served
from api.serving.minibatches import BatchingThreads, PendingRequest, late
from api.serving.registry import Registry
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.errors import Invalid
from storage.settings import Settings
from trainer.networks.pictures import Form

Ranked = tuple[tuple[str, float], ...]  # (label, probability), best first


@dataclass(frozen=True, eq=False)
class Answer:
    """A version's probabilities for the images of a request."""

    model_id: str
    version: int
    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]  # [images, classes]

    def ranked(self, k: int) -> tuple[Ranked, ...]:
        """For each image the ``k`` most probable classes, best first; all if there are fewer."""
        rows = self.probabilities
        k = min(k, rows.shape[1])
        best = np.argpartition(-rows, k - 1, axis=1)[:, :k]  # in no order yet
        values = np.take_along_axis(rows, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        best, values = np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)
        return tuple(
            tuple((self.labels[index], probability) for index, probability in zip(indices, probabilities, strict=True))
            for indices, probabilities in zip(best.tolist(), values.tolist(), strict=True)
        )


class Engine:
    """Admits requests, has their images decoded on threads, and computes them in minibatches that requests share."""

    def __init__(
        self, settings: Settings, *, worker: int, database: Database, blobs: BlobStore, measures: Measures
    ) -> None:
        """Prepare to serve the versions in service; `start` begins to look for them."""
        self._settings = settings
        devices = own_devices(serving_devices(settings.serving_devices), worker, of=settings.api_workers)
        share = len(os.sched_getaffinity(0)) // (settings.api_workers * len(devices))
        self._runtime = Runtime(settings.serving_threads or max(share, 1), precision=settings.serving_precision)
        self.registry = Registry(
            database=database,
            loader=Loader(database=database, blobs=blobs, devices=devices, runtime=self._runtime),
            measures=measures,
            capacity=settings.loaded_versions,
            watch_seconds=settings.watch_seconds,
        )
        self._decoders = Decoders(max_pixels=settings.max_image_pixels, measures=measures)
        self._batching = BatchingThreads(
            len(devices),
            capacity=settings.max_waiting_images,
            minibatch=settings.minibatch_images,
            wait_seconds=settings.minibatch_wait_seconds,
            measures=measures,
        )

    def start(self) -> None:
        """Begin to load the models taught last, and to look for promotions."""
        self.registry.start()

    def stop(self) -> None:
        """Finish the work under way and end the threads."""
        self.registry.stop()
        self._decoders.stop()
        self._batching.stop()
        self._runtime.stop()

    async def predict(
        self, name: str, files: Sequence[bytes], *, deadline: float, version: int | None = None
    ) -> Answer:
        """Probabilities of image files by the current or a given version of a model.

        ``deadline``, by time.monotonic(), includes the time to load a version. Raises `ImageUnreadable` that names the
        position of the image, `Invalid` for no image or too many, `Overloaded`, `DeadlineExceeded`, `ModelNotFound`,
        `NoVersionYet`, `VersionNotFound` and `VersionUnloadable`.
        """
        self._check_count(len(files))
        served = await self.served(name, version, deadline)
        model = served.model
        request = self._admit(served, len(files), deadline)

        def decoded(outcome: Images | Exception) -> None:
            if isinstance(outcome, Exception):
                self._batching.withdraw(request)
                request.resolve(outcome)
            else:
                request.pixels = outcome
                self._batching.put(request)

        self._decoders.decode(files, Form(model.channels, model.image_size), deadline, decoded)
        return await self._answered(served, request)

    async def compute(
        self, name: str, pixels: NDArray[np.float32], *, deadline: float, version: int | None = None
    ) -> Answer:
        """Probabilities of pixels, float32 [images, channels, size, size] in 0 … 1, before normalisation.

        Raises `Invalid` for pixels of another shape, and what `predict` raises.
        """
        self._check_count(len(pixels))
        served = await self.served(name, version, deadline)
        expected = (served.model.channels, served.model.image_size, served.model.image_size)
        if tuple(pixels.shape[1:]) != expected:
            raise Invalid(f"Images of this model have the shape {list(expected)}, not {list(pixels.shape[1:])}.")
        request = self._admit(served, len(pixels), deadline)
        request.pixels = pixels
        self._batching.put(request)
        return await self._answered(served, request)

    def deadline(self, arrived_at: float, seconds: float | None) -> float:
        """Deadline of a request, by time.monotonic() like ``arrived_at``; ``seconds`` is the limit that it asks for."""
        most = self._settings.deadline_seconds
        return arrived_at + (most if seconds is None else min(seconds, most))

    async def served(self, name: str, version: int | None, deadline: float) -> Served:
        """The version that answers for a model, or the given one, loaded if necessary; raises as `predict` does."""
        if (served := self.registry.ready(name, version)) is not None:
            return served
        async with within(deadline):
            return await self.registry.load(name, version)

    def _check_count(self, images: int) -> None:
        most = self._settings.max_images_per_request
        if not 1 <= images <= most:
            raise Invalid(f"{images} images in one request: send 1 to {most} at a time.")

    def _admit(self, served: Served, images: int, deadline: float) -> PendingRequest:
        loop = asyncio.get_running_loop()
        self._batching.admit(served.batcher, images)
        return PendingRequest(served.batcher, images, deadline, loop.create_future(), loop)

    async def _answered(self, served: Served, request: PendingRequest) -> Answer:
        try:
            async with within(request.deadline):
                probabilities = await request.answer
        finally:
            self._batching.leave(request)
        return Answer(served.model.id, served.number, served.labels, probabilities)


@asynccontextmanager
async def within(deadline: float) -> AsyncIterator[None]:
    """Raise `DeadlineExceeded` if the body is not finished by ``deadline``, by time.monotonic()."""
    limit = asyncio.timeout(deadline - time.monotonic())
    try:
        async with limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise late() from None
        raise
