"""What a version says of each image agrees with its metrics."""

import numpy as np
import pytest

from storage.domain import new_id
from trainer.evaluation.metrics import measure
from trainer.process.evaluations import evaluations_of


@pytest.mark.parametrize("sizes", [[2], [3, 1], [4, 4, 9]])
def test_predictions_and_scores_are_those_that_were_measured(sizes: list[int]):
    rng = np.random.default_rng(sum(sizes))
    classes = sum(sizes)
    targets = rng.integers(classes, size=200)
    logits = np.round(rng.normal(size=(200, classes)) * 4, 0)  # with ties
    ids = [new_id() for _ in targets]
    results = evaluations_of(logits, targets=targets, ids=ids, task_sizes=sizes)
    measured = measure(logits=logits, targets=targets, task_sizes=sizes)
    for form in ("tag", "taw"):
        confusion = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(confusion, (results.targets, results.predicted(form)), 1)
        assert np.array_equal(confusion, getattr(measured, form).confusion)
    assert [results.image_id(row) for row in range(200)] == ids
    assert np.array_equal(results.top[:, 0], results.tag)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.sort(-probabilities, axis=1)[:, :5]
    assert results.scores == pytest.approx(expected, abs=1e-3)
    assert np.allclose(np.take_along_axis(probabilities, results.top, axis=1), expected)


def test_large_logits_do_not_overflow():
    results = evaluations_of(np.array([[1e4, -1e4]]), targets=np.array([1]), ids=[new_id()], task_sizes=[2])
    assert results.scores.tolist() == [[1.0, 0.0]]


def test_no_image_is_no_row():
    results = evaluations_of(np.empty((0, 3)), targets=np.empty(0, np.int64), ids=[], task_sizes=[3])
    assert (len(results), results.top.shape) == (0, (0, 3))
    assert len(results.encoded()) > 0
