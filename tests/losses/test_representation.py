"""The terms on features, attention maps and cosines, at values one can compute by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.representation import attention_distillation, less_forget, margin_ranking

few = settings(max_examples=50, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def maps(seed: int, *shape: int) -> torch.Tensor:
    """Maps as after a ReLU: some positions are zero."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).relu()


def test_features_that_keep_their_direction_are_free_and_others_cost_what_they_turned():
    teacher = torch.tensor([[1.0, 0.0]] * 4, dtype=torch.float64)
    turned = [[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.5, math.sqrt(0.75)]]  # by 0, 90, 180 and 60 degrees
    for features, expected in zip(turned, (0.0, 1.0, 2.0, 0.5), strict=True):
        found = less_forget(student_features=torch.tensor([features]).double(), teacher_features=teacher[:1])
        assert found.item() == pytest.approx(expected, abs=1e-7)
    found = less_forget(student_features=torch.tensor(turned).double(), teacher_features=teacher)
    assert found.item() == pytest.approx(3.5 / 4, abs=1e-7)


def test_attention_is_compared_position_by_position_at_unit_length():
    student = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])  # 0.6, 0.8
    teacher = torch.tensor([[[0.0, 2.0], [0.0, 0.0]]])  # 0, 1
    found = attention_distillation(student_attention=student, teacher_attention=teacher)
    assert found.item() == pytest.approx(0.6 + 0.2, rel=1e-6)


def test_a_map_of_zeros_stays_zero():
    zeros, seen = torch.zeros(1, 3, 3), torch.tensor([[[3.0, 0, 0], [0, 4.0, 0], [0, 0, 0]]])
    assert attention_distillation(student_attention=zeros, teacher_attention=zeros) == 0
    for student, teacher in ((zeros, seen), (seen, zeros)):
        found = attention_distillation(student_attention=student, teacher_attention=teacher)
        assert found.item() == pytest.approx(1.4, rel=1e-6)


def test_a_map_the_relu_has_emptied_gets_a_gradient_of_zero():
    before_relu = torch.full((1, 2, 2), -1.0, requires_grad=True)
    attention_distillation(student_attention=before_relu.relu(), teacher_attention=torch.ones(1, 2, 2)).backward()
    assert before_relu.grad is not None
    assert not before_relu.grad.any()


@given(factors=st.tuples(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9)), seed=seeds)
@few
def test_attention_has_no_unit(factors, seed):
    student, teacher = maps(seed, 2, 4, 3, 3) + 1e-3
    before, after = (
        attention_distillation(student_attention=student * a, teacher_attention=teacher * b).item()
        for a, b in ((1.0, 1.0), factors)
    )
    assert after == pytest.approx(before, rel=1e-12)


@given(seed=seeds)
@few
def test_a_step_along_the_attention_gradient_lowers_the_term(seed):
    student, teacher = (maps(seed, 2, 4, 3, 3) + 0.1).unbind()
    student.requires_grad_()
    term = attention_distillation(student_attention=student, teacher_attention=teacher)
    (gradient,) = torch.autograd.grad(term, student)
    assert gradient.any()
    step = 1e-6 / gradient.norm()
    lower = attention_distillation(student_attention=student - step * gradient, teacher_attention=teacher)
    assert lower < term


COSINES = torch.tensor(
    [
        [0.9, 0.1, 0.3, 0.6, 0.5],  # of class 0: 0.5 − 0.9 + 0.6 = 0.2 and + 0.5 = 0.1; the third new one counts for 0
        [0.8, 0.2, -0.4, 0.1, -0.9],  # of class 1: 0.5 − 0.2 + 0.1 = 0.4, and − 0.4 below the margin by 0.1
        [0.0, 0.0, 0.7, 0.6, 0.9],  # of class 4, which is new
    ],
    dtype=torch.float64,
)
LABELS = torch.tensor([0, 1, 4])


def test_margin_ranking_is_the_mean_over_old_images_and_their_hardest_new_classes():
    found = margin_ranking(cosines=COSINES, targets=LABELS, old_classes=2)
    assert found.item() == pytest.approx((0.2 + 0.1 + 0.4 + 0.0) / 4, rel=1e-12)
    hardest = margin_ranking(cosines=COSINES, targets=LABELS, old_classes=2, hardest_classes=1)
    assert hardest.item() == pytest.approx((0.2 + 0.4) / 2, rel=1e-12)


@pytest.mark.parametrize("hardest_classes", [3, 4, 100])
def test_margin_ranking_takes_all_new_classes_if_there_are_fewer_than_it_wants(hardest_classes):
    found = margin_ranking(cosines=COSINES, targets=LABELS, old_classes=2, margin=1.0, hardest_classes=hardest_classes)
    assert found.item() == pytest.approx((0.7 + 0.6 + 0.4 + 0.9 + 0.4 + 0.0) / 6, rel=1e-12)


def test_margin_ranking_pulls_towards_the_class_and_away_from_those_too_near():
    cosines = COSINES.clone().requires_grad_()
    margin_ranking(cosines=cosines, targets=LABELS, old_classes=2).backward()
    expected = torch.tensor([[-2.0, 0, 0, 1, 1], [0, -1, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.float64) / 4
    torch.testing.assert_close(cosines.grad, expected)


def test_without_old_images_margin_ranking_is_zero():
    cosines = COSINES.clone().requires_grad_()
    found = margin_ranking(cosines=cosines, targets=torch.tensor([2, 3, 4]), old_classes=2)
    found.backward()
    assert found == 0
    assert cosines.grad is not None
    assert not cosines.grad.any()
