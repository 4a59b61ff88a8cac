"""Minibatches: images of many requests computed together, on one thread for each device."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from api.measures import Measures
from api.serving.costs import Costs
from api.serving.execution import Execution, Images
from storage.errors import DeadlineExceeded, Overloaded

Probabilities = NDArray[np.float32]  # [images, classes]
log = logging.getLogger(__name__)


@dataclass(eq=False)
class PendingRequest:
    """One request's images for a version, and the future of its answer."""

    batcher: "Batcher"
    images: int
    deadline: float  # of time.monotonic()
    answer: asyncio.Future[Probabilities]
    loop: asyncio.AbstractEventLoop
    pixels: Images | None = None  # [images, channels, size, size], once decoded
    decoded_at: float = 0.0

    def resolve(self, outcome: Probabilities | Exception) -> None:
        """Answer the request, from any thread."""
        self.loop.call_soon_threadsafe(resolve, [(self, outcome)])


def resolve(outcomes: Sequence[tuple[PendingRequest, Probabilities | Exception]]) -> None:
    """Answer the requests that still wait; to be called on their event loop."""
    for request, outcome in outcomes:
        if request.answer.done():  # cancelled, or too late
            continue
        if isinstance(outcome, Exception):
            request.answer.set_exception(outcome)
        else:
            request.answer.set_result(outcome)


@dataclass(eq=False)
class Batcher:
    """The queue of one version, bounded in images; guarded by the lock of its threads."""

    name: str  # of model and version, for people
    executions: tuple[Execution, ...]  # one for each thread
    costs: Costs = field(default_factory=Costs)
    admitted: int = 0  # images from their admission to their answer
    decoding: int = 0  # of these, images that are still being decoded
    waiting: deque[PendingRequest] = field(default_factory=deque)

    @property
    def depth(self) -> int:
        """Images that wait for a thread."""
        return sum(request.images for request in self.waiting)


class BatchingThreads:
    """Threads that compute waiting requests, first for the version whose request has waited longest.

    A minibatch is closed when it is full, or when no admitted image of the version is still being decoded, and at the
    latest ``wait_seconds`` after its first request was decoded. A request that is alone never waits. By the measured
    costs of the version, a minibatch waits no longer than the wait can save, and is full as soon as more images would
    hardly make it cheaper.
    """

    def __init__(
        self,
        count: int,
        *,
        capacity: int,
        minibatch: int,
        wait_seconds: float,
        measures: Measures,
    ) -> None:
        """Start ``count`` threads; each version may let ``capacity`` images wait."""
        self._capacity, self._minibatch, self._wait_seconds = capacity, minibatch, wait_seconds
        self._measures = measures
        self._changed = threading.Condition()
        self._ready: dict[Batcher, None] = {}  # those with waiting requests; their order does not matter
        self._stopped = False
        self._seconds_per_image = 0.01  # a moving average, until it is known
        self._batching = [
            threading.Thread(target=self._work, args=(place,), name=f"minibatches-{place}", daemon=True)
            for place in range(count)
        ]
        for thread in self._batching:
            thread.start()

    def admit(self, batcher: Batcher, images: int) -> None:
        """Admit a request of so many images; raises `Overloaded` if there is no room for them.

        Call `leave` once for every admission.
        """
        with self._changed:
            if batcher.admitted and batcher.admitted + images > self._capacity:
                seconds = batcher.admitted * self._seconds_per_image
                self._measures.refused.inc()
                raise Overloaded(
                    f"{batcher.admitted} images wait for {batcher.name} already, of {self._capacity} that may: "
                    f"try again in about {max(1, round(seconds))} s, or more slowly.",
                    retry_after=max(1, round(seconds)),
                )
            batcher.admitted += images
            batcher.decoding += images

    def put(self, request: PendingRequest) -> None:
        """Queue a request whose images are decoded."""
        request.decoded_at = time.monotonic()
        with self._changed:
            batcher = request.batcher
            batcher.decoding -= request.images
            batcher.waiting.append(request)
            self._measures.queue_images.inc(request.images)
            self._ready[batcher] = None
            self._changed.notify()

    def withdraw(self, request: PendingRequest) -> None:
        """Tell that a request's images could not be decoded: minibatches no longer wait for them."""
        with self._changed:
            request.batcher.decoding -= request.images
            self._changed.notify()

    def leave(self, request: PendingRequest) -> None:
        """Give back the room of a request that is answered or waits no longer."""
        with self._changed:
            request.batcher.admitted -= request.images

    def stop(self) -> None:
        """Compute the waiting requests, then end the threads."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._batching:
            thread.join()

    def _work(self, place: int) -> None:
        while self._serve_next(place):  # a frame of its own: no variable here keeps a replaced version
            pass

    def _serve_next(self, place: int) -> bool:
        """Compute a minibatch and answer its requests; False at the end."""
        if (taken := self._take()) is None:
            return False
        batcher, requests = taken
        outcomes = self._compute(batcher.executions[place], requests)
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[PendingRequest, Probabilities | Exception]]] = {}
        for request, outcome in zip(requests, outcomes, strict=True):
            by_loop.setdefault(request.loop, []).append((request, outcome))
        for loop, resolved in by_loop.items():
            loop.call_soon_threadsafe(resolve, resolved)
        return True

    def _take(self) -> tuple[Batcher, list[PendingRequest]] | None:
        """Wait for the next minibatch, of one version, without cancelled or late requests; None at the end."""
        with self._changed:
            while True:
                pauses = {batcher: self._pause(batcher) for batcher in self._ready}
                due = [batcher for batcher, pause in pauses.items() if pause <= 0]
                if due:
                    batcher = min(due, key=lambda one: one.waiting[0].decoded_at)
                    if requests := self._cut(batcher):
                        return batcher, requests
                elif self._stopped and not self._ready:
                    return None
                else:
                    self._changed.wait(min(pauses.values(), default=None))

    def _pause(self, batcher: Batcher) -> float:
        """Seconds to wait for more images of a version; 0 or less if its minibatch is due."""
        if batcher.decoding == 0 or self._stopped or batcher.depth >= batcher.costs.enough(self._minibatch):
            return 0.0
        waited = time.monotonic() - batcher.waiting[0].decoded_at
        return batcher.costs.worth_waiting(self._wait_seconds) - waited

    def _cut(self, batcher: Batcher) -> list[PendingRequest]:
        """Take as many whole requests as fit, at least one; those past their deadline are answered at once."""
        taken: list[PendingRequest] = []
        images, now, most = 0, time.monotonic(), batcher.costs.enough(self._minibatch)
        while batcher.waiting and (not taken or images + batcher.waiting[0].images <= most):
            request = batcher.waiting.popleft()
            self._measures.queue_images.dec(request.images)
            if request.answer.done():
                continue
            if request.deadline <= now:
                request.resolve(late())
                continue
            taken.append(request)
            images += request.images
        if batcher.waiting:
            self._changed.notify()  # for another thread
        else:
            del self._ready[batcher]
        return taken

    def _compute(self, execution: Execution, requests: Sequence[PendingRequest]) -> list[Probabilities | Exception]:
        began = time.monotonic()
        is_one = sum(request.images for request in requests) <= self._minibatch  # one computation, if it does not fail
        for request in requests:
            self._measures.queue_seconds.observe(began - request.decoded_at)
        try:
            outcomes: list[Probabilities | Exception] = list(self._run(execution, requests))
        except Exception as error:  # which request failed is unknown: each is computed alone
            log.exception("%d requests of %s failed together", len(requests), requests[0].batcher.name)
            outcomes = [self._alone(execution, request) for request in requests] if len(requests) > 1 else [error]
            is_one = False
        images, seconds = sum(request.images for request in requests), time.monotonic() - began
        if is_one:
            with self._changed:
                requests[0].batcher.costs.note(images, seconds)
        self._seconds_per_image += 0.1 * (seconds / images / len(self._batching) - self._seconds_per_image)
        self._measures.minibatch_images.observe(images)
        self._measures.inference_seconds.observe(seconds)
        return outcomes

    def _alone(self, execution: Execution, request: PendingRequest) -> Probabilities | Exception:
        try:
            return self._run(execution, [request])[0]
        except Exception as error:
            log.exception("a request of %s failed", request.batcher.name)
            return error

    def _run(self, execution: Execution, requests: Sequence[PendingRequest]) -> Sequence[Probabilities]:
        """Probabilities of each request; a request that is larger than a minibatch is computed in several."""
        images = [_images(request) for request in requests]
        if len(images) > 1 or len(images[0]) <= self._minibatch:
            return execution.probabilities(images)
        starts = range(0, len(images[0]), self._minibatch)
        parts = [execution.probabilities([images[0][start : start + self._minibatch]])[0] for start in starts]
        return [np.concatenate(parts)]


def late() -> DeadlineExceeded:
    """The error of a request whose deadline has passed."""
    return DeadlineExceeded(
        "The answer was not ready within the request's deadline, so it is not computed: try again later, or give it "
        "more time (ACCRETE_DEADLINE_SECONDS, or the header Accrete-Deadline-Seconds)."
    )


def _images(request: PendingRequest) -> Images:
    assert request.pixels is not None
    return request.pixels
