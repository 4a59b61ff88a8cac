"""How a version's network is computed: several executions of the same weights, and for each minibatch the fastest."""

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from api.serving.frozen import Forward, blueprint, frozen
from trainer.networks import LoadedVersion

P = ParamSpec("P")
Result = TypeVar("Result")

SIZES = (1, 4, 16)  # images of a minibatch at which executions are measured, each good until the next
RUNS = 5  # timed at each size; the shortest counts
TOLERANCE = 1e-3  # by which a logit may differ from the eager one's
DOUBLING = 1.3  # times as fast must be what takes twice the threads
NICENESS = 10  # of what prepares a version beside the one in service, as of training
EAGER, FROZEN = "eager", "frozen"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Plan:
    """A version on one device: which execution computes minibatches from which size on."""

    version: LoadedVersion
    device: torch.device
    steps: tuple["Step", ...]  # ascending, the first from 1 image on

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Softmax over all classes, float32 [n, classes] on the CPU, of `EvaluationTransform.normalise`'s pixels."""
        step = self.step(len(pixels))
        torch.set_num_threads(step.threads)  # of this thread's computations
        images = self.version.transform.normalise(pixels.to(self.device))
        logits = step.forward(images.contiguous(memory_format=torch.channels_last))
        return logits.float().softmax(dim=1).cpu()

    def step(self, images: int) -> "Step":
        """How so many images are computed at once."""
        return next((step for step in reversed(self.steps) if images >= step.least), self.steps[0])

    @property
    def chosen(self) -> "Choice":
        """Name and threads of the execution from so many images on."""
        return {step.least: (step.name, step.threads) for step in self.steps}


@dataclass(frozen=True, eq=False)
class Step:
    """An execution, on so many threads, for minibatches from so many images on."""

    least: int
    name: str
    threads: int
    forward: Forward


Choice = dict[int, tuple[str, int]]


class Planner:
    """Makes plans; what was fastest for one version is taken for the next of the same make, without measuring again."""

    def __init__(self, threads: int) -> None:
        """Let an execution on a CPU use so many threads, at most."""
        self.threads = threads
        self._chosen: dict[tuple[object, ...], Choice] = {}
        self._traces: dict[tuple[object, ...], bytes | None] = {}
        self._yielding = ThreadPoolExecutor(1, "preparing", initializer=_yield_processor)

    def aside(self, work: Callable[P, Result], *arguments: P.args, **options: P.kwargs) -> Future[Result]:
        """Do some work on a thread that lets serving go first.

        It is for what computes. What holds the interpreter must not yield: serving would wait for it all the longer.
        """
        return self._yielding.submit(work, *arguments, **options)

    def stop(self) -> None:
        """End that thread."""
        self._yielding.shutdown()

    def plan(self, version: LoadedVersion, device: torch.device, *, pause_seconds: float = 0.0) -> Plan:
        """Prepare ``version`` on ``device``, warmed at every size; its network moves there.

        ``pause_seconds``: after what holds the interpreter, where others are served meanwhile.
        """
        network = version.network.to(device).requires_grad_(False)
        executions: dict[str, Forward] = {EAGER: network}
        transform = version.transform
        make = (str(device), network.name, transform.image_size, transform.channels, network.head_kind)
        chosen = self._chosen.get(make)
        samples = {size: _sample(version, device, size) for size in SIZES}
        if chosen is None or any(name == FROZEN for name, _ in chosen.values()):
            if make not in self._traces:
                self._traces[make] = blueprint(network, samples[SIZES[0]])
            if (trace := self._traces[make]) is not None:
                executions[FROZEN] = frozen(network, trace, pause_seconds=pause_seconds)
        network.to(memory_format=torch.channels_last)
        self.aside(_drop_deviating, executions, samples[SIZES[1]]).result()
        if chosen is None:
            counts = self._counts(device)
            chosen = {size: _fastest(executions, counts, samples[size]) for size in SIZES}
            self._chosen[make] = chosen
            log.info("%s at %d pixels: %s", network.name, transform.image_size, chosen)
        steps = tuple(
            Step(size, name, threads, executions.get(name, network)) for size, (name, threads) in chosen.items()
        )
        self.aside(_warm, steps, samples).result()
        return Plan(version, device, steps)

    def _counts(self, device: torch.device) -> list[int]:
        """Numbers of threads that are tried: powers of two, and all; a GPU needs but one."""
        if device.type != "cpu":
            return [1]
        return sorted(
            {2**power for power in range(self.threads.bit_length()) if 2**power < self.threads} | {self.threads}
        )


def _sample(version: LoadedVersion, device: torch.device, images: int) -> Tensor:
    """Normalised images that are no constant, as they come before a network."""
    transform = version.transform
    count = images * transform.channels * transform.image_size * transform.image_size
    pixels = torch.arange(count, device=device).mul_(37).remainder_(256).to(torch.uint8)
    shape = (images, transform.image_size, transform.image_size, transform.channels)
    return transform.normalise(pixels.view(shape).permute(0, 3, 1, 2))


def _yield_processor() -> None:
    """Let others go first, from this thread alone (Linux gives each thread a priority of its own)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


@torch.inference_mode()
def _drop_deviating(executions: dict[str, Forward], sample: Tensor) -> None:
    """Drop what does not answer as the network itself does."""
    expected = executions[EAGER](sample)
    for name in [name for name in executions if name != EAGER]:
        difference = float((executions[name](sample) - expected).abs().max())
        if not difference <= TOLERANCE:
            log.warning("the %s execution is not used: its logits differ by %g", name, difference)
            del executions[name]


@torch.inference_mode()
def _warm(steps: Sequence[Step], samples: Mapping[int, Tensor]) -> None:
    """Compute once what is computed: the first time is slower, and nobody should wait for it."""
    for step in steps:
        torch.set_num_threads(step.threads)
        step.forward(samples[step.least])


@torch.inference_mode()
def _fastest(executions: dict[str, Forward], counts: Sequence[int], sample: Tensor) -> tuple[str, int]:
    """Name and threads of the execution that is done first, by its shortest of some interleaved runs.

    More threads have to be worth it: they take processors from decoding and from answering.
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
