"""What the other servers are given: the same weights and the same decoding, computed by torch as fast as it can."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.parts.torchexecutions import Compute, eager, frozen
from benchmarks.parts.turns import Turns
from trainer.networks import LoadedVersion, load_version
from trainer.networks.pictures import Form

MINIBATCH = 32
WAIT_SECONDS = 0.005
TOP = 5
SIZES = (1, 2, 4, 8, 16, MINIBATCH)  # images of the minibatches that are tried
WARM_ROUNDS, ROUNDS = 3, 7


class Classifier:
    """A version in a folder, computed eagerly or frozen, whichever is faster for a minibatch of that size."""

    def __init__(self) -> None:
        """Load what PEER_VERSION names, for PEER_THREADS threads."""
        torch.set_num_threads(int(os.environ.get("PEER_THREADS", "1")))
        self._version = load_version(Path(os.environ["PEER_VERSION"]))
        transform = self._version.transform
        self._form = Form(transform.channels, transform.image_size)
        self._fastest = fastest(self._version)

    def pixels(self, file: bytes) -> Tensor:
        """uint8 [channels, size, size]."""
        size = self._form.image_size
        row = bytearray(self._form.row(file, max_pixels=50_000_000))
        return torch.frombuffer(row, dtype=torch.uint8).view(size, size, self._form.channels).permute(2, 0, 1)

    def classify(self, pixels: Sequence[Tensor]) -> list[list[tuple[str, float]]]:
        """The best classes of each of at most `MINIBATCH` images."""
        compute = next(self._fastest[size] for size in SIZES if size >= len(pixels))
        return self._version.top_k(compute(torch.stack(list(pixels))), TOP)


def fastest(version: LoadedVersion) -> dict[int, Compute]:
    """Torch's faster execution of a version, by the size of the minibatch; both take turns."""
    executions = {"eager": eager(version), "frozen": frozen(version)}
    shape = (version.transform.channels, version.transform.image_size, version.transform.image_size)
    found = {}
    for size in SIZES:
        images = torch.randint(256, (size, *shape), dtype=torch.uint8)
        turns = Turns({name: partial(compute, images) for name, compute in executions.items()}, images.device)
        for _ in range(WARM_ROUNDS + ROUNDS):
            turns.round()
        times = {name: sorted(seconds[WARM_ROUNDS:])[ROUNDS // 2] for name, seconds in turns.seconds.items()}
        found[size] = executions[min(times, key=times.__getitem__)]
    return found
