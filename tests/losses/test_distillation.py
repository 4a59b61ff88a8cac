"""What the distilling terms are indifferent to, and what they notice.

Shifts are drawn so that adding them to the logits rounds nothing: then indifferent means the same bits.
"""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from losses.classification import softmax_cross_entropy
from losses.distillation import binary_distillation, joint_distillation, separated_distillation
from losses.tasks import task_slices

few = settings(max_examples=50, deadline=None)
seeds = st.integers(0, 2**32 - 1)
some_task_sizes = st.lists(st.integers(1, 5), min_size=1, max_size=6)
several_task_sizes = st.lists(st.integers(1, 5), min_size=2, max_size=6)
temperatures = st.sampled_from([1.0, 2.0, 3.0, 0.7])
exact_shifts = st.integers(-(10**4), 10**4).map(float)
moderate_shifts = st.floats(0.1, 5.0)


def sixteenths(seed: int, *shape: int) -> Tensor:
    """Normal logits on a grid so coarse that a whole number is added exactly."""
    return (torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 48).round() / 16


def pair(seed: int, task_sizes: list[int], batch: int = 3) -> tuple[Tensor, Tensor]:
    """Student and teacher."""
    student, teacher = sixteenths(seed, 2, batch, sum(task_sizes))
    return student.clone().requires_grad_(), teacher


def per_task(shifts: list[float], task_sizes: list[int]) -> Tensor:
    return torch.tensor(shifts, dtype=torch.float64).repeat_interleave(torch.tensor(task_sizes))


def with_gradient(term, student: Tensor, **others) -> tuple[Tensor, Tensor]:
    leaf = student.detach().clone().requires_grad_()
    value = term(student_logits=leaf, **others)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def curvature(term, student: Tensor, shift: Tensor, **others) -> float:
    """(f(z + c) + f(z − c)) / 2 − f(z)."""
    up, level, down = (term(student_logits=student + sign * shift, **others).item() for sign in (1, 0, -1))
    return float((up + down) / 2 - level)


@given(data=st.data(), task_sizes=some_task_sizes, temperature=temperatures, seed=seeds)
@few
def test_separated_distillation_cannot_see_a_constant_of_its_own_on_each_task(data, task_sizes, temperature, seed):
    student, teacher = pair(seed, task_sizes)
    amounts = st.lists(exact_shifts, min_size=len(task_sizes), max_size=len(task_sizes))
    moved, moved_teacher = (logits + per_task(data.draw(amounts), task_sizes) for logits in (student, teacher))
    others = {"tasks": task_slices(task_sizes), "temperature": temperature}
    before = with_gradient(separated_distillation, student, teacher_logits=teacher, **others)
    after = with_gradient(separated_distillation, moved, teacher_logits=moved_teacher, **others)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


@given(task_sizes=some_task_sizes, temperature=temperatures, seed=seeds)
@few
def test_separated_distillation_never_pushes_a_whole_task(task_sizes, temperature, seed):
    student, teacher = pair(seed, task_sizes)
    tasks = task_slices(task_sizes)
    _, gradient = with_gradient(
        separated_distillation, student, teacher_logits=teacher, tasks=tasks, temperature=temperature
    )
    for task in tasks:
        assert gradient[:, task].sum(dim=1).abs().max() < 1e-14


@given(shift=exact_shifts, task_sizes=some_task_sizes, temperature=temperatures, seed=seeds)
@few
def test_joint_distillation_cannot_see_a_constant_common_to_all_tasks(shift, task_sizes, temperature, seed):
    student, teacher = pair(seed, task_sizes)
    others = {"teacher_logits": teacher, "temperature": temperature}
    before = with_gradient(joint_distillation, student, **others)
    after = with_gradient(joint_distillation, student + shift, **others)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


@given(shift=exact_shifts, task_sizes=some_task_sizes, seed=seeds)
@few
def test_cross_entropy_over_all_classes_cannot_see_a_constant_common_to_all_tasks(shift, task_sizes, seed):
    student, _ = pair(seed, task_sizes)
    targets = torch.arange(3) % sum(task_sizes)
    before, after = (
        with_gradient(softmax_cross_entropy, logits, targets=targets) for logits in (student, student + shift)
    )
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


@given(shift=moderate_shifts, task_sizes=several_task_sizes, seed=seeds, data=st.data())
@few
def test_joint_distillation_and_cross_entropy_notice_a_constant_on_one_task(shift, task_sizes, seed, data):
    student, teacher = pair(seed, task_sizes)
    moved = data.draw(st.integers(0, len(task_sizes) - 1))
    along = per_task([shift * (task == moved) for task in range(len(task_sizes))], task_sizes)
    targets = torch.arange(3) % sum(task_sizes)
    assert curvature(joint_distillation, student, along, teacher_logits=teacher) > 1e-9
    assert curvature(softmax_cross_entropy, student, along, targets=targets) > 1e-9


@given(classes=st.integers(1, 9), temperature=temperatures, seed=seeds)
@few
def test_with_one_old_task_joint_and_separated_distillation_are_one(classes, temperature, seed):
    student, teacher = pair(seed, [classes])
    others = {"teacher_logits": teacher, "temperature": temperature}
    torch.testing.assert_close(
        with_gradient(joint_distillation, student, **others),
        with_gradient(separated_distillation, student, tasks=task_slices([classes]), **others),
        rtol=1e-14,
        atol=1e-15,
    )


@given(task_sizes=some_task_sizes, temperature=temperatures, seed=seeds)
@few
def test_separated_distillation_is_joint_distillation_of_each_task_alone(task_sizes, temperature, seed):
    student, teacher = pair(seed, task_sizes)
    alone = [
        joint_distillation(
            student_logits=student[:, task], teacher_logits=teacher[:, task], temperature=temperature
        ).item()
        for task in task_slices(task_sizes)
    ]
    together = separated_distillation(
        student_logits=student, teacher_logits=teacher, tasks=task_slices(task_sizes), temperature=temperature
    )
    assert together.item() == pytest.approx(math.fsum(alone), rel=1e-13, abs=1e-15)


@given(data=st.data(), task_sizes=some_task_sizes, seed=seeds)
@few
def test_binary_distillation_is_strictly_convex_along_every_shift(data, task_sizes, seed):
    student, teacher = pair(seed, task_sizes)
    amounts = data.draw(st.lists(moderate_shifts, min_size=len(task_sizes), max_size=len(task_sizes)))
    others = {"teacher_logits": teacher, "tasks": task_slices(task_sizes)}
    assert curvature(binary_distillation, student, per_task(amounts, task_sizes), **others) > 1e-9
    only_first = per_task([amounts[0], *[0.0] * (len(amounts) - 1)], task_sizes)
    assert curvature(binary_distillation, student, only_first, **others) > 1e-9


@given(task_sizes=some_task_sizes, seed=seeds)
@few
def test_each_task_has_one_level_where_binary_distillation_rests(task_sizes, seed):
    _, teacher = pair(seed, task_sizes)
    tasks = task_slices(task_sizes)
    _, at_rest = with_gradient(binary_distillation, teacher, teacher_logits=teacher, tasks=tasks)
    assert at_rest.abs().max() < 1e-15
    for amount in (1.0, -1.0):
        _, pushed = with_gradient(binary_distillation, teacher + amount, teacher_logits=teacher, tasks=tasks)
        for task in tasks:
            assert (pushed[:, task].sum(dim=1) * amount > 0).all()  # back to where it was


@pytest.mark.parametrize("term", [joint_distillation, separated_distillation, binary_distillation])
def test_a_student_like_its_teacher_is_left_alone(term):
    _, teacher = pair(0, [4, 1, 2])
    tasks = {} if term is joint_distillation else {"tasks": task_slices([4, 1, 2])}
    _, gradient = with_gradient(term, teacher, teacher_logits=teacher, **tasks)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-15)


@pytest.mark.parametrize("term", [separated_distillation, binary_distillation])
@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_the_mean_over_tasks_is_the_sum_by_their_number(term, tasks):
    student, teacher = pair(0, [3] * tasks)
    summed, averaged = (
        term(
            student_logits=student,
            teacher_logits=teacher,
            tasks=task_slices([3] * tasks),
            task_reduction=reduction,
        ).item()
        for reduction in ("sum", "mean")
    )
    assert averaged == pytest.approx(summed / tasks, rel=1e-14)


def test_a_task_of_one_class_has_nothing_to_separate():
    student, teacher = pair(0, [1, 1, 1])
    value, gradient = with_gradient(
        separated_distillation, student, teacher_logits=teacher, tasks=task_slices([1, 1, 1])
    )
    assert value == 0
    assert not gradient.any()


def test_binary_distillation_of_sure_sigmoids_keeps_its_digits_in_float32():
    # σ(17) is 1 − 4·10⁻⁸, which float32 cannot tell from 1; the wrong sigmoid's share of the loss is all there is.
    student, teacher = torch.tensor([[1e4]]), torch.tensor([[17.0]])
    found = binary_distillation(student_logits=student, teacher_logits=teacher, tasks=task_slices([1]))
    assert found.item() == pytest.approx(1e4 / (1 + math.exp(17)), rel=1e-6)


def test_tasks_stand_side_by_side():
    slices = task_slices((2, 5, 1, 3))
    assert [task.stop - task.start for task in slices] == [2, 5, 1, 3]
    assert slices[0].start == 0
    assert all(left.stop == right.start for left, right in pairwise(slices))
