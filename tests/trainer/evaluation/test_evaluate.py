"""A network that tells its new classes apart worse than by guessing is no version, and bad luck is no fault."""

from typing import Any

import numpy as np
import pytest
import torch

from storage.settings import Settings
from trainer.evaluation.evaluate import LEVEL, BelowChance, _at_most, check_learned, evaluate
from trainer.learning.data import ImageSet
from trainer.learning.learned import Learned
from trainer.networks import EvaluationTransform, build
from trainer.process.run import _reason
from trainer.reporting import SilentReport

NEW = {"which": "the new classes", "within": "within these classes"}


def confusion(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.int64)


@pytest.mark.parametrize(
    "found",
    [
        confusion([0, 20], [20, 0]),  # each taken for the other
        confusion([1, 7, 6, 6], [7, 1, 6, 6], [6, 6, 1, 7], [7, 6, 6, 1]),
    ],
    ids=["two classes", "four classes"],
)
def test_predictions_worse_than_guesses_are_a_failure_with_its_reason(found):
    with pytest.raises(BelowChance, match=r"of \d+ held-out images .* guessing would get .* learning_rate") as failed:
        check_learned(found, **NEW)
    assert _reason(failed.value, Settings()) == str(failed.value)


@pytest.mark.parametrize(
    "found",
    [
        confusion([9, 1], [2, 8]),
        confusion([4]),  # a class alone
        confusion([0, 0], [0, 0]),  # nothing to measure on
        confusion([0, 3], [2, 1]),  # few images, bad luck
        confusion([10, 10], [10, 10]),  # guesses
        confusion([0, 100, 0], [0, 10, 0], [0, 20, 0]),  # all are given one class, and it is a small one
    ],
    ids=["learned", "one class", "no image", "few images", "guesses", "one answer"],
)
def test_what_guessing_can_do_is_no_failure(found):
    check_learned(found, **NEW)


def test_the_level_bounds_how_often_guesses_are_refused():
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(2000):
        truth, predicted = random.integers(0, 3, (2, 30))
        found = np.zeros((3, 3), dtype=np.int64)
        np.add.at(found, (truth, predicted), 1)
        try:
            check_learned(found, **NEW)
        except BelowChance:
            refused += 1
    assert refused <= 2000 * LEVEL * 4


@pytest.mark.parametrize(("hits", "trials", "probability"), [(0, 3, 0.5), (2, 5, 0.25), (5, 5, 0.3)])
def test_the_tail_is_the_sum_one_can_write_down(hits, trials, probability):
    expected = sum(
        len([1 for bits in range(2**trials) if bits.bit_count() == k])
        * probability**k
        * (1 - probability) ** (trials - k)
        for k in range(hits + 1)
    )
    assert _at_most(hits, trials=trials, probability=probability) == pytest.approx(expected, rel=1e-12)


def test_a_network_that_takes_its_new_classes_for_each_other_is_not_evaluated_to_a_version():
    """As heads of a scale below 0 did."""
    torch.manual_seed(0)
    network = build("resnet32", channels=3, image_size=8, task_sizes=(2,), head_kind="cosine").eval()
    pixels = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    transform = EvaluationTransform(8, 3, mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3))
    learned = Learned(network, transform)
    with torch.no_grad():
        middle = network.features(transform.normalise(pixels)).mean(0)
        axis = torch.randn(network.dim)
        axis -= (axis @ middle) / (middle @ middle) * middle  # so that images lie on both sides
        network.heads[0].get_parameter("weight").copy_(torch.stack([axis, -axis]))
        said = network(transform.normalise(pixels)).argmax(1)
    right = ImageSet(pixels, said, tuple(map(str, range(40))))
    wrong = ImageSet(pixels, 1 - said, right.ids)
    told: dict[str, Any] = {"ancestors": [], "labels": ["a", "b"], "report": SilentReport()}
    assert evaluate(learned, right, **told).document["taw"]["average_accuracy"] == 1.0
    with pytest.raises(BelowChance, match="of the new classes"):
        evaluate(learned, wrong, **told)
    # Nor is one that brings no new class, and takes those it has for each other.
    before = evaluate(learned, right, **told).document
    again = evaluate(learned, right, **told | {"ancestors": [before]}).document
    assert again["taw"]["forgetting_by_task"] == [0.0]
    with pytest.raises(BelowChance, match="of all classes"):
        evaluate(learned, wrong, **told | {"ancestors": [before]})
