"""Networks in much use are compiled while they serve; then every loaded version of the make uses the library."""

import logging
import threading
from dataclasses import replace

from api.serving.execution import Compiler, Library, Make, Plan, Planner, yield_processor
from api.serving.loading import Served
from api.serving.registry import Registry

LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


class BackgroundCompiler:
    """A thread of low priority that compiles the networks that have computed for long enough.

    Compiling takes some 30 s of a processor and saves a tenth to a quarter of an inference. It begins when the
    inferences so far would have paid for it (docs/decisions/0015).
    """

    def __init__(self, registry: Registry, planner: Planner, compiler: Compiler, *, after_seconds: float) -> None:
        """Compile a make after ``after_seconds`` of inference."""
        self._registry, self._planner, self._compiler = registry, planner, compiler
        self._after_seconds = after_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="improving", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and a compilation that is under way."""
        self._stopped.set()
        self._compiler.stop()
        self._thread.join()

    def _work(self) -> None:
        yield_processor()
        while not self._stopped.wait(LOOK_SECONDS):
            for served in self._registry.loaded():
                self._improve(served)

    def _improve(self, served: Served) -> None:
        """Let a version use its make's library, compiled now if it pays; it is used from the next minibatch on."""
        better: dict[Plan, Plan] = {}
        for plan in dict.fromkeys(served.batcher.plans):
            library = None if plan.knows_library else self._library(plan.make)
            if library is None:
                continue
            try:
                better[plan] = self._planner.with_library(plan, library)
            except Exception:  # served as it was, and not tried again
                log.exception("%s cannot be computed by a compiled network", served.batcher.name)
                better[plan] = replace(plan, knows_library=True)
        if better:
            served.batcher.plans = tuple(better.get(plan, plan) for plan in served.batcher.plans)

    def _library(self, make: Make) -> Library | None:
        if make.library is not None:
            return make.library
        if make.is_compiled or make.device.type != "cpu" or make.seconds < self._after_seconds:
            return None
        make.is_compiled = True
        return self._compiler.compile(make.source)
