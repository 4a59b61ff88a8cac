"""The evaluation of a network: all its metrics on held-out images, for the service and for experiments."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation import metrics
from trainer.learning.data import ImageSet
from trainer.learning.learned import Learned, head_rows, logits_of
from trainer.reporting import Report

LEVEL = 1e-3  # of significance of the test below: a network that guesses fails it so often at most


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What was measured of a network."""

    document: dict[str, Any]  # its metrics (docs/metrics.md)
    logits: NDArray[np.float64]  # [images, classes]


class BelowChance(Exception):
    """Predictions are worse than guesses: the training has failed, and no version is made of it."""


def evaluate(
    learned: Learned,
    tests: ImageSet,
    *,
    ancestors: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    report: Report,
) -> Evaluation:
    """The metrics on the evaluation images of all tasks that still have some.

    ``ancestors`` are the documents of the versions before it, ``labels`` in the order of the logits. Raises
    `LossNotFinite` for outputs that are not finite, and `BelowChance`.
    """
    norms, biases = head_rows(learned.network)
    logits = logits_of(learned, tests, report=report).numpy().astype(np.float64)
    measurement = metrics.measure(
        logits=logits,
        targets=tests.targets.numpy(),
        task_sizes=learned.network.task_sizes,
        weight_norms=norms,
        biases=biases,
    )
    sizes = learned.network.task_sizes
    if not ancestors or len(ancestors[-1]["taw"]["accuracy"]) < len(sizes):
        new = slice(-sizes[-1], None)
        check_learned(measurement.taw.confusion[new, new], which="the new classes", within="within these classes")
    else:
        check_learned(measurement.tag.confusion, which="all classes", within="among them all")
    return Evaluation(metrics.document(ancestors, measurement, labels=labels), logits)


def check_learned(confusion: NDArray[np.int64], *, which: str, within: str) -> None:
    """Raise `BelowChance` if predictions, counts of images [true, predicted], are significantly worse than guesses.

    A guess assigns the same predictions to the images at random. So a network that predicts one class for all images
    guesses, however many images that class has. The test is binomial and one-sided, since a few images can be wrong by
    bad luck.
    """
    images, hits = int(confusion.sum()), int(confusion.trace())
    if images == 0:
        return
    chance = float(confusion.sum(axis=0) @ confusion.sum(axis=1)) / images**2
    if hits < chance * images and _at_most(hits, trials=images, probability=chance) < LEVEL:
        raise BelowChance(
            f"of {images} held-out images of {which} {hits} are told right {within}, where "
            f"guessing would get {chance * images:.1f}: the training went astray. Change the recipe (a lower "
            "learning_rate, more epochs) or the strategy."
        )


def _at_most(hits: int, *, trials: int, probability: float) -> float:
    """P(X ≤ hits) of a binomial X, for a probability between 0 and 1."""
    won, lost = math.log(probability), math.log1p(-probability)
    return math.fsum(
        math.exp(
            math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * won + (trials - k) * lost
        )
        for k in range(hits + 1)
    )
