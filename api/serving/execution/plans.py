"""How a version's network is computed: of several executions of the same weights, the fastest for each minibatch."""

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from api.serving.execution.frozen import Forward, blueprint, frozen
from api.serving.execution.libraries import Compiler, Library, Source
from trainer.networks import LoadedVersion

P = ParamSpec("P")
Result = TypeVar("Result")

SIZES = (1, 4, 16)  # images of the minibatches that are measured; each result holds up to the next size
RUNS = 5  # timed at each size; the shortest counts
TOLERANCE = 1e-3  # by which a logit may differ from the eager one's
DOUBLING = 1.3  # an execution on twice the threads must be so many times as fast
NICENESS = 10  # of the thread that prepares a version beside the one in service, as of training
EAGER, FROZEN, COMPILED = "eager", "frozen", "compiled"

log = logging.getLogger(__name__)

Choice = dict[int, tuple[str, int]]  # by the least number of images: name and threads of the execution


@dataclass(eq=False)
class Make:
    """What the versions of one network, image size and kind of head share on a device."""

    device: torch.device
    source: Source
    chosen: Choice | None = None  # what was fastest, once it was measured
    trace: bytes | None = None  # without weights
    is_traced: bool = False  # or was tried in vain
    library: Library | None = None
    is_compiled: bool = False  # or was tried in vain
    seconds: float = 0.0  # of inference so far

    def uses(self, name: str) -> bool:
        """Whether an execution is needed: to be measured, or because it was chosen."""
        return self.chosen is None or any(chosen == name for chosen, _ in self.chosen.values())


@dataclass(frozen=True, eq=False)
class Plan:
    """A version on one device: which execution computes minibatches from which size on."""

    version: LoadedVersion
    make: Make
    steps: tuple["Step", ...]  # ascending, the first from 1 image on
    knows_library: bool = False  # whether the compiled execution was there to be chosen

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.make.device

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Softmax over all classes, float32 [n, classes] on the CPU; pixels as for `EvaluationTransform.normalise`."""
        step = self.step(len(pixels))
        torch.set_num_threads(step.threads)  # of this thread's computations
        images = self.version.transform.normalise(pixels.to(self.device))
        logits = step.forward(images.contiguous(memory_format=torch.channels_last))
        return logits.float().softmax(dim=1).cpu()

    def step(self, images: int) -> "Step":
        """The step for a minibatch of so many images."""
        return next((step for step in reversed(self.steps) if images >= step.least), self.steps[0])

    @property
    def chosen(self) -> Choice:
        """Name and threads of the executions, by their least number of images."""
        return {step.least: (step.name, step.threads) for step in self.steps}


@dataclass(frozen=True, eq=False)
class Step:
    """An execution on so many threads, for minibatches of at least ``least`` images."""

    least: int
    name: str
    threads: int
    forward: Forward


class Planner:
    """Makes plans; the executions of a make are measured for its first version, and again when it gets a library."""

    def __init__(self, threads: int, compiler: Compiler | None = None) -> None:
        """Let an execution on a CPU use at most ``threads``; ``compiler`` has the libraries compiled before."""
        self.threads = threads
        self._compiler = compiler
        self._makes: dict[tuple[str, Source], Make] = {}
        self._tracing = threading.Lock()  # versions are loaded in parallel, and torch.jit is not thread-safe
        self._yielding = ThreadPoolExecutor(1, "preparing", initializer=yield_processor)

    def aside(self, work: Callable[P, Result], *arguments: P.args, **options: P.kwargs) -> Future[Result]:
        """Call ``work`` on a thread of low priority, so that serving goes first.

        For computations only. Work that holds the interpreter lock must not yield: serving would wait longer for it.
        """
        return self._yielding.submit(work, *arguments, **options)

    def stop(self) -> None:
        """End the thread of low priority."""
        self._yielding.shutdown()

    def plan(self, version: LoadedVersion, device: torch.device, *, pause_seconds: float = 0.0) -> Plan:
        """Prepare ``version`` on ``device``, warmed at every size; its network moves there.

        ``pause_seconds`` is slept after each step that holds the interpreter lock, so that requests are served.
        """
        network = version.network.to(device).requires_grad_(False)
        samples = _samples(version, device)
        executions: dict[str, Forward] = {EAGER: network}
        with self._tracing:
            make = self._make(version, device)
            if make.uses(FROZEN):
                if not make.is_traced:
                    make.trace, make.is_traced = blueprint(network, samples[SIZES[0]]), True
                if make.trace is not None:
                    executions[FROZEN] = frozen(network, make.trace, pause_seconds=pause_seconds)
        library = make.library  # read once: another thread may set it meanwhile
        network.to(memory_format=torch.channels_last)
        if library is not None and make.uses(COMPILED):
            executions[COMPILED] = library.forward(network)
        self.aside(_drop_deviating, executions, samples).result()
        if make.chosen is None:
            self._choose(make, executions, samples)
        plan = Plan(version, make, _steps(make, executions), knows_library=library is not None)
        self.aside(_warm, plan.steps, samples).result()
        return plan

    def with_library(self, plan: Plan, library: Library) -> Plan:
        """A new, warmed plan of the same version with a library that was compiled later.

        Executions are measured again if the library is new to the make. To be called on a thread of low priority, since
        the version is in service meanwhile.
        """
        make, samples = plan.make, _samples(plan.version, plan.device)
        executions: dict[str, Forward] = {EAGER: plan.version.network}
        executions |= {step.name: step.forward for step in plan.steps}
        executions[COMPILED] = library.forward(plan.version.network)
        _drop_deviating(executions, samples)
        if make.library is None:
            self._choose(make, executions, samples)
            make.library = library
        better = replace(plan, steps=_steps(make, executions), knows_library=True)
        _warm(better.steps, samples)
        return better

    def _make(self, version: LoadedVersion, device: torch.device) -> Make:
        network, transform = version.network, version.transform
        source = Source(network.name, transform.channels, transform.image_size, network.head_kind)
        key = (str(device), source)
        if key not in self._makes:
            make = self._makes[key] = Make(device, source)
            if self._compiler is not None and device.type == "cpu":
                make.library = self._compiler.at_hand(source)
        return self._makes[key]

    def _choose(self, make: Make, executions: dict[str, Forward], samples: Mapping[int, Tensor]) -> None:
        counts = self._counts(make.device)
        make.chosen = {size: _fastest(executions, counts, sample) for size, sample in samples.items()}
        log.info("%s at %d pixels: %s", make.source.network, make.source.image_size, make.chosen)

    def _counts(self, device: torch.device) -> list[int]:
        """Numbers of threads to measure: powers of two below ``threads``, and ``threads``; 1 on a GPU."""
        if device.type != "cpu":
            return [1]
        return sorted(
            {2**power for power in range(self.threads.bit_length()) if 2**power < self.threads} | {self.threads}
        )


def _steps(make: Make, executions: Mapping[str, Forward]) -> tuple["Step", ...]:
    """The chosen execution for each size; the eager one if the version lacks the chosen one."""
    assert make.chosen is not None
    return tuple(
        Step(size, name, threads, executions.get(name, executions[EAGER]))
        for size, (name, threads) in make.chosen.items()
    )


def _samples(version: LoadedVersion, device: torch.device) -> dict[int, Tensor]:
    """A minibatch of every size at which executions are measured."""
    return {size: _sample(version, device, size) for size in SIZES}


def _sample(version: LoadedVersion, device: torch.device, images: int) -> Tensor:
    """Normalised images [images, channels, size, size] with different pixels, as input of a network."""
    transform = version.transform
    count = images * transform.channels * transform.image_size * transform.image_size
    pixels = torch.arange(count, device=device).mul_(37).remainder_(256).to(torch.uint8)
    shape = (images, transform.image_size, transform.image_size, transform.channels)
    return transform.normalise(pixels.view(shape).permute(0, 3, 1, 2))


def yield_processor() -> None:
    """Lower the priority of the calling thread alone (on Linux each thread has its own)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


@torch.inference_mode()
def _drop_deviating(executions: dict[str, Forward], samples: Mapping[int, Tensor]) -> None:
    """Drop, in place, executions whose logits differ from the eager one's by more than `TOLERANCE`."""
    for sample in samples.values():
        expected = executions[EAGER](sample)
        for name in [name for name in executions if name != EAGER]:
            difference = float((executions[name](sample) - expected).abs().max())
            if not difference <= TOLERANCE:
                log.warning("the %s execution is not used: its logits differ by %g", name, difference)
                del executions[name]


@torch.inference_mode()
def _warm(steps: Sequence[Step], samples: Mapping[int, Tensor]) -> None:
    """Run every step once: the first run is slower, and no request should wait for it."""
    for step in steps:
        torch.set_num_threads(step.threads)
        step.forward(samples[step.least])


@torch.inference_mode()
def _fastest(executions: dict[str, Forward], counts: Sequence[int], sample: Tensor) -> tuple[str, int]:
    """Name and threads of the fastest execution, by the shortest of its `RUNS`, which are interleaved.

    More threads must be faster by `DOUBLING`: they take processors from decoding and from answering.
    """
    seconds = {(name, threads): float("inf") for name in executions for threads in counts}
    if len(seconds) > 1:
        for _ in range(RUNS):
            for (name, threads), shortest in seconds.items():
                torch.set_num_threads(threads)
                began = time.perf_counter()
                executions[name](sample).sum().item()  # waits for the device
                seconds[name, threads] = min(shortest, time.perf_counter() - began)
    return min(seconds, key=lambda one: seconds[one] * DOUBLING ** math.log2(one[1]))
