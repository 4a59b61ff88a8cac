"""The terms that learn from labels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.classification import binary_prediction, softmax_cross_entropy


def test_cross_entropy_of_logits_that_say_nothing_is_the_logarithm_of_the_number_of_classes():
    found = softmax_cross_entropy(student_logits=torch.zeros(3, 7), targets=torch.tensor([0, 3, 6]))
    assert found.item() == pytest.approx(math.log(7), rel=1e-6)


def test_label_smoothing_spreads_its_share_over_all_classes_the_target_included():
    logits = torch.tensor([[math.log(6), math.log(2), math.log(2)]], dtype=torch.float64)  # 0.6, 0.2, 0.2
    found = softmax_cross_entropy(student_logits=logits, targets=torch.tensor([0]), label_smoothing=0.3)
    assert found.item() == pytest.approx(-0.8 * math.log(0.6) - 0.2 * math.log(0.2), rel=1e-14)


def test_binary_prediction_of_logits_that_say_nothing_is_the_logarithm_of_two():
    found = binary_prediction(student_logits=torch.zeros(3, 7), targets=torch.tensor([0, 3, 6]))
    assert found.item() == pytest.approx(math.log(2), rel=1e-6)


def test_binary_prediction_asks_each_class_alone():
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(4)]], dtype=torch.float64)  # ¾, ½ and ½, ⅘
    found = binary_prediction(student_logits=logits, targets=torch.tensor([0, 0]))
    assert found.item() == pytest.approx(-(math.log(0.75) + 2 * math.log(0.5) - math.log(5)) / 4, rel=1e-14)


@pytest.mark.parametrize("sure", [5.0, 17.0, 30.0])
def test_binary_prediction_of_what_is_known_keeps_its_digits_in_float32(sure):
    found = binary_prediction(student_logits=torch.tensor([[sure, -sure]]), targets=torch.tensor([0]))
    assert found.item() == pytest.approx(math.log1p(math.exp(-sure)), rel=1e-6)


@given(shift=st.floats(0.1, 5.0), classes=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_binary_prediction_is_strictly_convex_along_a_shift_which_cross_entropy_cannot_see(shift, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, classes, dtype=torch.float64, generator=generator) * 3
    targets = torch.randint(classes, (4,), generator=generator)
    for term, seen in ((binary_prediction, True), (softmax_cross_entropy, False)):
        up, level, down = (term(student_logits=logits + c, targets=targets).item() for c in (shift, 0.0, -shift))
        assert ((up + down) / 2 - level > 1e-9) is seen


def test_one_class_is_learned_by_binary_prediction_only():
    logits = torch.tensor([[0.3]], requires_grad=True)
    softmax_cross_entropy(student_logits=logits, targets=torch.tensor([0])).backward()
    assert logits.grad is not None
    assert not logits.grad.any()
    binary_prediction(student_logits=logits, targets=torch.tensor([0])).backward()
    assert logits.grad.all()
