"""Whether a quantised graph may stand in for the graph it was made from: accuracy, time and size of both."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.export.agreement import open_session
from trainer.export.paired import CONFIDENCE, Paired
from trainer.networks.manifest import PIXELS, PROBABILITIES

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ALLOWED = 0.005  # of accuracy: what int8 may lose and still be offered
SECONDS = 60.0  # after which no further minibatch is compared
TIMED = (1, 16)  # images of the minibatches whose time is measured
_RUNS = 9  # of each minibatch that is timed, after one that is not


@dataclass(frozen=True, slots=True)
class Comparison:
    """A graph in float32 and the one in int8, on the same evaluation images."""

    paired: Paired  # float32 first
    finite: bool  # whether every probability by int8 is a number
    seconds: Mapping[int, tuple[float, float]]  # median by the number of images of a minibatch: float32, int8
    sizes: tuple[int, int]  # bytes: float32, int8
    threads: int  # that computed

    @property
    def reason(self) -> str | None:
        """Why int8 is not offered; None if it is."""
        paired = self.paired
        if not self.finite:
            return "it computes values that are no numbers"
        if not paired.images:
            return "not shown: there are no evaluation images"
        if paired.drop_at_most > ALLOWED:
            return (
                f"not shown: {paired.only_first} of {paired.images} images are right by float32 alone and "
                f"{paired.only_second} by int8 alone, which allows a bound of {100 * paired.drop_at_most:.2f} points, "
                f"and at most {100 * ALLOWED:g} may be lost"
            )
        return None

    def to_json(self) -> dict[str, Any]:
        """The record for version.json."""
        paired, names = self.paired, ("float32", "int8")
        both = paired.both_right
        return {
            "offered": self.reason is None,
            "reason": self.reason,
            "images": paired.images,
            "right": {"float32": both + paired.only_first, "int8": both + paired.only_second},
            "right_by_one_alone": {"float32": paired.only_first, "int8": paired.only_second},
            "drop": round(paired.drop, 6),
            "drop_at_most": round(paired.drop_at_most, 6),
            "confidence": CONFIDENCE,
            "allowed": ALLOWED,
            "seconds": {
                str(images): dict(zip(names, (round(one, 6) for one in pair), strict=True))
                for images, pair in self.seconds.items()
            },
            "threads": self.threads,
            "bytes": dict(zip(names, self.sizes, strict=True)),
        }


def compare(
    content: bytes, quantised: bytes, minibatches: Iterable[tuple[Tensor, Tensor]], *, threads: int
) -> Comparison:
    """Compare two graphs on minibatches of pixels, uint8 [images, channels, size, size], and targets, int64 [images].

    After `SECONDS` the images that were compared are enough, so they should come in a random order.
    """
    sessions = (open_session(content, threads=threads), open_session(quantised, threads=threads))
    counts = dict.fromkeys(((True, True), (True, False), (False, True), (False, False)), 0)
    finite, shown = True, None
    began = time.monotonic()
    for pixels, targets in minibatches:
        found = [_probabilities(session, pixels.numpy()) for session in sessions]
        finite = finite and bool(np.isfinite(found[1]).all())
        right = [one.argmax(axis=1) == targets.numpy() for one in found]
        for pair in zip(*(one.tolist() for one in right), strict=True):
            counts[pair] += 1
        shown = pixels if shown is None else shown
        if time.monotonic() - began > SECONDS:
            break
    return Comparison(
        paired=Paired(
            images=sum(counts.values()),
            both_right=counts[True, True],
            only_first=counts[True, False],
            only_second=counts[False, True],
        ),
        finite=finite,
        seconds={} if shown is None else {images: _seconds(sessions, _repeated(shown, images)) for images in TIMED},
        sizes=(len(content), len(quantised)),
        threads=threads,
    )


def _probabilities(session: "InferenceSession", pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    probabilities: NDArray[np.float32] = session.run([PROBABILITIES], {PIXELS: pixels})[0]
    return probabilities


def _seconds(sessions: "tuple[InferenceSession, InferenceSession]", pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """The median time of a minibatch by each; in turn, so that both find the machine equally busy."""
    taken: tuple[list[float], list[float]] = ([], [])
    for run in range(1 + _RUNS):
        for session, times in zip(sessions, taken, strict=True):
            began = time.perf_counter()
            _probabilities(session, pixels)
            if run > 0:
                times.append(time.perf_counter() - began)
    return median(taken[0]), median(taken[1])


def _repeated(pixels: Tensor, images: int) -> NDArray[np.uint8]:
    """So many images, repeated if there are fewer."""
    repeated: NDArray[np.uint8] = pixels[torch.arange(images) % len(pixels)].numpy()
    return repeated
