"""How a version's network is computed: several executions of the same weights, and for each minibatch the fastest."""

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.networks import LoadedVersion

Forward = Callable[[Tensor], Tensor]  # normalised images [n, channels, size, size] to logits [n, classes]

SIZES = (1, 4, 16)  # images of a minibatch at which executions are measured, each good until the next
RUNS = 3  # timed at each size, after the first has warmed it up; the shortest counts
TOLERANCE = 1e-3  # by which a logit may differ from the eager one's
EAGER, FROZEN = "eager", "frozen"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Plan:
    """A version on one device: which execution computes minibatches from which size on."""

    version: LoadedVersion
    device: torch.device
    steps: tuple[tuple[int, str, Forward], ...]  # (least images, name, execution), ascending, the first from 1 on

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Softmax over all classes, float32 [n, classes] on the CPU, of `EvaluationTransform.normalise`'s pixels."""
        images = self.version.transform.normalise(pixels.to(self.device))
        logits = self.forward(len(pixels))(images.contiguous(memory_format=torch.channels_last))
        return logits.float().softmax(dim=1).cpu()

    def forward(self, images: int) -> Forward:
        """The execution for so many images at once."""
        chosen = self.steps[0][2]
        for least, _, forward in self.steps:
            if images >= least:
                chosen = forward
        return chosen

    @property
    def names(self) -> dict[int, str]:
        """Name of the execution from so many images on."""
        return {least: name for least, name, _ in self.steps}


@dataclass
class Planner:
    """Makes plans; what was fastest for one version is taken for the next of the same make, without measuring again."""

    threads: int  # of one execution on a CPU
    _chosen: dict[tuple[object, ...], dict[int, str]] = field(default_factory=dict)

    def plan(self, version: LoadedVersion, device: torch.device) -> Plan:
        """Prepare ``version`` on ``device``, warmed at every size; its network moves there."""
        torch.set_num_threads(self.threads)
        network = version.network.to(device, memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]
        executions: dict[str, Forward] = {EAGER: network}
        transform = version.transform
        make = (str(device), network.name, transform.image_size, transform.channels, network.head_kind)
        chosen = self._chosen.get(make)
        with torch.inference_mode(False), torch.no_grad():
            samples = {size: _sample(version, device, size) for size in SIZES}
            wanted = chosen is None or FROZEN in chosen.values()
            if wanted and (frozen := _frozen(version, samples[SIZES[-1]])) is not None:
                executions[FROZEN] = frozen
        with torch.inference_mode():
            _warm(executions, samples)
            if chosen is None:
                chosen = self._chosen[make] = {size: _fastest(executions, samples[size]) for size in SIZES}
                log.info("%s at %d pixels: %s", network.name, transform.image_size, chosen)
        steps = tuple((size, name, executions.get(name, network)) for size, name in chosen.items())
        return Plan(version, device, steps)


def _sample(version: LoadedVersion, device: torch.device, images: int) -> Tensor:
    """Normalised images that are no constant, as they come before a network."""
    transform = version.transform
    count = images * transform.channels * transform.image_size * transform.image_size
    pixels = torch.arange(count, device=device).mul_(37).remainder_(256).to(torch.uint8)
    shape = (images, transform.image_size, transform.image_size, transform.channels)
    return transform.normalise(pixels.view(shape).permute(0, 3, 1, 2))


def _frozen(version: LoadedVersion, sample: Tensor) -> Forward | None:
    """Traced, its weights constants: batch normalisation folded, convolutions prepacked and fused with what follows.

    None where that cannot be done or changes the answers; the network itself serves then.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch.jit is to go one day; `eager` stays
            traced = torch.jit.trace(version.network, sample, check_trace=False)  # type: ignore[no-untyped-call]
            frozen: Forward = torch.jit.optimize_for_inference(torch.jit.freeze(traced.eval()))
    except RuntimeError as error:  # what a tracer cannot follow
        log.info("%s is not frozen: %s", version.network.name, error)
        return None
    return frozen


def _warm(executions: dict[str, Forward], samples: dict[int, Tensor]) -> None:
    """Compute every size once, and drop what does not answer as the network itself does."""
    for sample in samples.values():
        expected = executions[EAGER](sample)
        for name in [name for name in executions if name != EAGER]:
            difference = float((executions[name](sample) - expected).abs().max())
            if not difference <= TOLERANCE:
                log.warning("the %s execution is not used: its logits differ by %g", name, difference)
                del executions[name]


def _fastest(executions: dict[str, Forward], sample: Tensor) -> str:
    """Name of the execution that is done first, by its shortest of some interleaved runs."""
    if len(executions) == 1:
        return EAGER
    seconds: dict[str, list[float]] = {name: [] for name in executions}
    for _ in range(RUNS):
        for name, forward in executions.items():
            began = time.perf_counter()
            forward(sample).sum().item()  # waits for the device
            seconds[name].append(time.perf_counter() - began)
    return min(seconds, key=lambda name: min(seconds[name]))
