"""Minibatches: images of many requests computed together, on one thread for each device."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from api.measures import Measures
from api.serving.execution.plans import Plan
from storage.errors import DeadlineExceeded, Overloaded

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Ticket:
    """One request's images at a version, and who waits for the answer."""

    batcher: "Batcher"
    images: int
    deadline: float  # of time.monotonic()
    answer: asyncio.Future[Tensor]  # probabilities [images, classes]
    loop: asyncio.AbstractEventLoop
    pixels: Tensor | None = None  # [images, channels, size, size], once decoded
    decoded_at: float = 0.0

    def resolve(self, outcome: Tensor | Exception) -> None:
        """Answer, from any thread."""
        self.loop.call_soon_threadsafe(resolve, [(self, outcome)])


def resolve(outcomes: Sequence[tuple[Ticket, Tensor | Exception]]) -> None:
    """Answer whoever still waits, on the event loop."""
    for ticket, outcome in outcomes:
        if ticket.answer.done():  # cancelled, or too late
            continue
        if isinstance(outcome, Exception):
            ticket.answer.set_exception(outcome)
        else:
            ticket.answer.set_result(outcome)


@dataclass(eq=False)
class Batcher:
    """The queue of one version, bounded in images; guarded by its lanes' lock."""

    name: str  # of model and version, for people
    plans: tuple[Plan, ...]  # one for each lane
    held: int = 0  # images from their admission to their answer
    coming: int = 0  # of these, images that are still being decoded
    waiting: deque[Ticket] = field(default_factory=deque)

    @property
    def depth(self) -> int:
        """Images that wait for a lane."""
        return sum(ticket.images for ticket in self.waiting)


class Lanes:
    """Threads that compute what waits, the version whose request has waited longest first.

    A minibatch is closed when it is full, or when nothing that was admitted is still on its way to it, and at the
    latest ``wait_seconds`` after its first image: alone, a request never waits.
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
        self._ready: dict[Batcher, None] = {}  # those with something waiting, in no order that matters
        self._stopped = False
        self._seconds_per_image = 0.01  # a moving average, until it is known
        self._lanes = [
            threading.Thread(target=self._work, args=(lane,), name=f"lane-{lane}", daemon=True) for lane in range(count)
        ]
        for thread in self._lanes:
            thread.start()

    def admit(self, batcher: Batcher, images: int) -> None:
        """Take a request of so many images in; raises `Overloaded` where there is no room for them.

        Every admission ends in one `leave`.
        """
        with self._changed:
            if batcher.held and batcher.held + images > self._capacity:
                seconds = batcher.held * self._seconds_per_image
                self._measures.refused.inc()
                raise Overloaded(
                    f"{batcher.held} images wait for {batcher.name} already, of {self._capacity} that may: "
                    f"try again in about {max(1, round(seconds))} s, or more slowly.",
                    retry_after=max(1, round(seconds)),
                )
            batcher.held += images
            batcher.coming += images

    def put(self, ticket: Ticket) -> None:
        """Its images are decoded: let them be computed."""
        ticket.decoded_at = time.monotonic()
        with self._changed:
            batcher = ticket.batcher
            batcher.coming -= ticket.images
            batcher.waiting.append(ticket)
            self._measures.queue_images.inc(ticket.images)
            self._ready[batcher] = None
            self._changed.notify()

    def withdraw(self, ticket: Ticket) -> None:
        """Its images will not come."""
        with self._changed:
            ticket.batcher.coming -= ticket.images
            self._changed.notify()

    def leave(self, ticket: Ticket) -> None:
        """A request has its answer, or waits no longer."""
        with self._changed:
            ticket.batcher.held -= ticket.images

    def stop(self) -> None:
        """Compute what waits, then end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._lanes:
            thread.join()

    def _work(self, lane: int) -> None:
        while self._serve_next(lane):  # in a frame of its own: here, nothing holds on to a version that was replaced
            pass

    def _serve_next(self, lane: int) -> bool:
        """Compute a minibatch and answer its requests; False at the end."""
        if (taken := self._take()) is None:
            return False
        batcher, tickets = taken
        outcomes = self._compute(batcher.plans[lane], tickets)
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Tensor | Exception]]] = {}
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            by_loop.setdefault(ticket.loop, []).append((ticket, outcome))
        for loop, resolved in by_loop.items():
            loop.call_soon_threadsafe(resolve, resolved)
        return True

    def _take(self) -> tuple[Batcher, list[Ticket]] | None:
        """The next minibatch, of one version, without requests that nobody waits for; None at the end."""
        with self._changed:
            while True:
                pauses = {batcher: self._pause(batcher) for batcher in self._ready}
                due = [batcher for batcher, pause in pauses.items() if pause <= 0]
                if due:
                    batcher = min(due, key=lambda one: one.waiting[0].decoded_at)
                    if tickets := self._cut(batcher):
                        return batcher, tickets
                elif self._stopped and not self._ready:
                    return None
                else:
                    self._changed.wait(min(pauses.values(), default=None))

    def _pause(self, batcher: Batcher) -> float:
        """Seconds for which more images are worth waiting for."""
        if batcher.coming == 0 or self._stopped or batcher.depth >= self._minibatch:
            return 0.0
        return self._wait_seconds - (time.monotonic() - batcher.waiting[0].decoded_at)

    def _cut(self, batcher: Batcher) -> list[Ticket]:
        """Take as many whole requests as fit, at least one; those past their deadline are answered at once."""
        taken: list[Ticket] = []
        images, now = 0, time.monotonic()
        while batcher.waiting and (not taken or images + batcher.waiting[0].images <= self._minibatch):
            ticket = batcher.waiting.popleft()
            self._measures.queue_images.dec(ticket.images)
            if ticket.answer.done():
                continue
            if ticket.deadline <= now:
                ticket.resolve(late())
                continue
            taken.append(ticket)
            images += ticket.images
        if batcher.waiting:
            self._changed.notify()  # for another lane
        else:
            del self._ready[batcher]
        return taken

    def _compute(self, plan: Plan, tickets: Sequence[Ticket]) -> list[Tensor | Exception]:
        began = time.monotonic()
        for ticket in tickets:
            self._measures.queue_seconds.observe(began - ticket.decoded_at)
        try:
            outcomes: list[Tensor | Exception] = list(self._run(plan, tickets))
        except Exception as error:  # of no request can be said that it was the one: each gets its own chance
            log.exception("%d requests of %s failed together", len(tickets), tickets[0].batcher.name)
            outcomes = [self._alone(plan, ticket) for ticket in tickets] if len(tickets) > 1 else [error]
        images, seconds = sum(ticket.images for ticket in tickets), time.monotonic() - began
        plan.make.seconds += seconds
        self._seconds_per_image += 0.1 * (seconds / images / len(self._lanes) - self._seconds_per_image)
        self._measures.minibatch_images.observe(images)
        self._measures.inference_seconds.observe(seconds)
        return outcomes

    def _alone(self, plan: Plan, ticket: Ticket) -> Tensor | Exception:
        try:
            return self._run(plan, [ticket])[0]
        except Exception as error:
            log.exception("a request of %s failed", ticket.batcher.name)
            return error

    def _run(self, plan: Plan, tickets: Sequence[Ticket]) -> Sequence[Tensor]:
        """Probabilities of each request; a request that is larger than a minibatch is computed in several."""
        pixels = [_pixels(ticket) for ticket in tickets]
        if len({one.dtype for one in pixels}) > 1:
            pixels = [one if one.is_floating_point() else one.to(torch.float32) / 255 for one in pixels]
        together = pixels[0] if len(pixels) == 1 else torch.cat(pixels)
        parts = [plan.probabilities(part) for part in torch.split(together, self._minibatch)]
        probabilities = parts[0] if len(parts) == 1 else torch.cat(parts)
        return torch.split(probabilities, [ticket.images for ticket in tickets])


def late() -> DeadlineExceeded:
    """What a request is told whose time is over."""
    return DeadlineExceeded(
        "The answer was not ready within the request's deadline, so it is not computed: try again later, or give it "
        "more time (ACCRETE_DEADLINE_SECONDS, or the header Accrete-Deadline-Seconds)."
    )


def _pixels(ticket: Ticket) -> Tensor:
    assert ticket.pixels is not None
    return ticket.pixels
