"""The objectives against a second implementation in numpy, in value and gradient, and against their invariances."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from losses import objective
from losses.distillation import binary_distillation, joint_distillation, separated_distillation
from losses.objectives import Objective
from losses.strategies import Weights
from losses.tasks import task_slices

Floats = NDArray[np.float64]
FULL = Objective(Weights(joint=0.5, separated=1.0, binary=0.25, prediction=2.0), distillation_weight=3.0)
TASKS = [(3,), (1,), (2, 2), (3, 1), (1, 1, 1), (2, 5, 1, 3)]


def minibatch(
    task_sizes: Sequence[int], *, rehearsal: bool, seed: int = 0, batch: int = 7
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Student logits, teacher logits and targets that are among the new classes only without rehearsal."""
    random = np.random.default_rng(seed)
    classes, old = sum(task_sizes), sum(task_sizes[:-1])
    targets = random.integers(0 if rehearsal else old, classes, batch)
    return random.normal(0, 2, (batch, classes)), random.normal(0, 2, (batch, old)), targets


def reference(
    logits: Floats,
    teacher: Floats,
    targets: NDArray[np.int64],
    task_sizes: Sequence[int],
    *,
    rehearsal: bool,
    weights: Weights,
    distillation_weight: float = 1.0,
    temperature: float = 2.0,
    mean_over_tasks: bool = False,
    label_smoothing: float = 0.0,
) -> float:
    """LOSSES.md spelled out image by image and class by class."""
    old = sum(task_sizes[:-1])
    bounds = np.cumsum([0, *task_sizes])
    total: float = 0.0
    for z, z_star, y in zip(logits, teacher, targets, strict=True):
        seen = range(len(z)) if rehearsal else range(old, len(z))
        log_p = _log_softmax(z[list(seen)]).tolist()
        smooth = [(1 - label_smoothing) * (c == y) + label_smoothing / len(seen) for c in seen]
        total -= sum(share * value for share, value in zip(smooth, log_p, strict=True))
        total += weights.prediction * _mean([_bce(z[c], float(c == y)) for c in seen])
        if old == 0:
            continue
        kept: float = weights.joint * _kd(z[:old], z_star, temperature)
        share = 1 / (len(task_sizes) - 1) if mean_over_tasks else 1.0
        spans = [slice(a, b) for a, b in pairwise(bounds[:-1])]
        kept += weights.separated * share * math.fsum([_kd(z[span], z_star[span], temperature) for span in spans])
        kept += (
            weights.binary
            * share
            * sum(
                [
                    _mean([_bce(a, 1 / (1 + math.exp(-b))) for a, b in zip(z[span], z_star[span], strict=True)])
                    for span in spans
                ]
            )
        )
        total += distillation_weight * kept
    return float(total / len(logits))


def _kd(z: Floats, z_star: Floats, temperature: float) -> float:
    return float(-(np.exp(_log_softmax(z_star / temperature)) * _log_softmax(z / temperature)).sum())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _log_softmax(z: Floats) -> Floats:
    return np.asarray(z - np.log(np.exp(z).sum()))


def _bce(z: float, target: float) -> float:
    p = 1 / (1 + math.exp(-z))
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def value(
    objective: Objective, logits: Floats, teacher: Floats, targets: object, sizes: Sequence[int], *, rehearsal: bool
) -> float:
    loss = objective(
        student_logits=torch.tensor(logits),
        teacher_logits=torch.tensor(teacher) if len(sizes) > 1 else None,
        targets=torch.tensor(targets),
        task_sizes=sizes,
        rehearsal=rehearsal,
    )
    return float(loss.total)


@pytest.mark.parametrize("task_sizes", TASKS, ids=str)
@pytest.mark.parametrize("rehearsal", [False, True], ids=["alone", "rehearsal"])
@pytest.mark.parametrize("name", ["finetune", "lwf"])
def test_named_objectives_equal_the_published_formula(name, rehearsal, task_sizes):
    logits, teacher, targets = minibatch(task_sizes, rehearsal=rehearsal)
    weights = Weights(joint=1.0) if name == "lwf" else Weights()
    expected = reference(
        logits,
        teacher,
        targets,
        task_sizes,
        rehearsal=rehearsal,
        weights=weights,
        distillation_weight=1.7,
        temperature=3.0,
    )
    chosen = objective(name, distillation_weight=1.7, temperature=3.0)
    found = value(chosen, logits, teacher, targets, task_sizes, rehearsal=rehearsal)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("task_sizes", TASKS, ids=str)
@pytest.mark.parametrize("rehearsal", [False, True], ids=["alone", "rehearsal"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_every_term_of_the_formula_carries_its_weight(reduction, rehearsal, task_sizes):
    logits, teacher, targets = minibatch(task_sizes, rehearsal=rehearsal)
    full = Objective(FULL.weights, distillation_weight=3.0, task_reduction=reduction, label_smoothing=0.2)
    expected = reference(
        logits,
        teacher,
        targets,
        task_sizes,
        rehearsal=rehearsal,
        weights=FULL.weights,
        distillation_weight=3.0,
        mean_over_tasks=reduction == "mean",
        label_smoothing=0.2,
    )
    assert value(full, logits, teacher, targets, task_sizes, rehearsal=rehearsal) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("task_sizes", TASKS, ids=str)
@pytest.mark.parametrize("rehearsal", [False, True], ids=["alone", "rehearsal"])
@pytest.mark.parametrize("name", ["finetune", "lwf", "every term"])
def test_gradients_equal_finite_differences_of_the_reference(name, rehearsal, task_sizes):
    logits, teacher, targets = minibatch(task_sizes, rehearsal=rehearsal, batch=3)
    chosen = FULL if name == "every term" else objective(name)
    student = torch.tensor(logits, requires_grad=True)
    chosen(
        student_logits=student,
        teacher_logits=torch.tensor(teacher) if len(task_sizes) > 1 else None,
        targets=torch.tensor(targets),
        task_sizes=task_sizes,
        rehearsal=rehearsal,
    ).total.backward()

    def at(moved: Floats) -> float:
        return reference(
            moved,
            teacher,
            targets,
            task_sizes,
            rehearsal=rehearsal,
            weights=chosen.weights,
            distillation_weight=chosen.distillation_weight,
        )

    step = 1e-6
    differences = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        nudge = np.zeros_like(logits)
        nudge[place] = step
        differences[place] = (at(logits + nudge) - at(logits - nudge)) / (2 * step)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), differences, atol=1e-8)


def test_values_one_can_compute_by_hand():
    # Two old classes, teacher certain of neither: J = ln 2 for equal logits; new task: −ln(e/(e+1)).
    loss = objective("lwf")(
        student_logits=torch.tensor([[4.0, 4.0, 1.0, 0.0]]),
        teacher_logits=torch.tensor([[9.0, 9.0]]),
        targets=torch.tensor([2]),
        task_sizes=(2, 2),
        rehearsal=False,
    )
    assert float(loss.parts["joint"]) == pytest.approx(np.log(2), rel=1e-6)
    assert float(loss.parts["classification"]) == pytest.approx(np.log(1 + np.exp(-1)), rel=1e-6)
    assert float(loss.total) == pytest.approx(np.log(2) + np.log(1 + np.exp(-1)), rel=1e-6)


def test_parts_bear_the_names_of_their_terms_and_add_up():
    logits, teacher, targets = (torch.tensor(array) for array in minibatch((2, 3), rehearsal=False))
    loss = FULL(student_logits=logits, teacher_logits=teacher, targets=targets, task_sizes=(2, 3), rehearsal=False)
    assert set(loss.parts) == {"classification", "prediction", "joint", "separated", "binary"}
    assert float(loss.total) == pytest.approx(sum(float(part) for part in loss.parts.values()), rel=1e-12)


def test_finetuning_is_cross_entropy_alone():
    logits, _, targets = (torch.tensor(array) for array in minibatch((2, 3), rehearsal=False))
    loss = objective("finetune")(
        student_logits=logits, teacher_logits=None, targets=targets, task_sizes=(2, 3), rehearsal=False
    )
    assert set(loss.parts) == {"classification"}


def test_the_first_task_is_learned_without_a_teacher():
    logits, _, targets = (torch.tensor(array) for array in minibatch((4,), rehearsal=False))
    loss = FULL(student_logits=logits, teacher_logits=None, targets=targets, task_sizes=(4,), rehearsal=False)
    assert set(loss.parts) == {"classification", "prediction"}


def test_without_rehearsal_labels_teach_the_old_heads_nothing():
    logits, _, targets = minibatch((3, 2), rehearsal=False)
    student = torch.tensor(logits, requires_grad=True)
    objective("finetune")(
        student_logits=student, teacher_logits=None, targets=torch.tensor(targets), task_sizes=(3, 2), rehearsal=False
    ).total.backward()
    assert student.grad is not None
    assert not student.grad[:, :3].any()
    assert student.grad[:, 3:].all()


def test_the_teacher_gets_no_gradient():
    logits, teacher, targets = minibatch((3, 2), rehearsal=False)
    given = torch.tensor(teacher, requires_grad=True)
    student = torch.tensor(logits, requires_grad=True)
    FULL(
        student_logits=student, teacher_logits=given, targets=torch.tensor(targets), task_sizes=(3, 2), rehearsal=False
    ).total.backward()
    assert given.grad is None


def test_distillation_is_least_where_the_student_equals_the_teacher():
    _, teacher, _ = (torch.tensor(array) for array in minibatch((4, 1), rehearsal=True))
    student = teacher.clone().requires_grad_()
    joint_distillation(student_logits=student, teacher_logits=teacher).backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.zeros_like(student), atol=1e-12, rtol=0)


shifts = st.lists(st.floats(-20, 20), min_size=3, max_size=3)


@given(shifts, st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_separated_distillation_is_indifferent_to_a_shift_of_each_task(shift, seed):
    student, teacher = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3
    tasks = task_slices((2, 3, 1))
    moved = student + torch.tensor(shift, dtype=torch.float64).repeat_interleave(torch.tensor([2, 3, 1]))
    torch.testing.assert_close(
        separated_distillation(student_logits=moved, teacher_logits=teacher, tasks=tasks),
        separated_distillation(student_logits=student, teacher_logits=teacher, tasks=tasks),
    )


@given(st.floats(-20, 20), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_lwf_is_indifferent_to_a_common_shift_of_the_old_logits_and_to_one_of_the_new(shift, seed):
    logits, teacher, targets = minibatch((2, 2, 3), rehearsal=False, seed=seed)
    before = value(objective("lwf"), logits, teacher, targets, (2, 2, 3), rehearsal=False)
    for columns in (slice(0, 4), slice(4, 7)):
        moved = logits.copy()
        moved[:, columns] += shift
        assert value(objective("lwf"), moved, teacher, targets, (2, 2, 3), rehearsal=False) == pytest.approx(
            before, rel=1e-9
        )


def test_joint_distillation_notices_a_shift_of_one_old_task():
    logits, teacher, targets = minibatch((2, 2, 3), rehearsal=False)
    moved = logits.copy()
    moved[:, :2] += 3.0
    before, after = (value(objective("lwf"), z, teacher, targets, (2, 2, 3), rehearsal=False) for z in (logits, moved))
    assert abs(after - before) > 0.01


@given(st.floats(0.01, 5), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_binary_distillation_is_strictly_convex_along_a_shift(shift, seed):
    student, teacher = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    up, level, down = (
        binary_distillation(student_logits=student + c, teacher_logits=teacher, tasks=task_slices((2, 1)))
        for c in (shift, 0.0, -shift)
    )
    assert (up + down) / 2 > level


def test_with_one_old_task_joint_and_separated_distillation_are_one():
    student, teacher = torch.randn(2, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(
        joint_distillation(student_logits=student, teacher_logits=teacher),
        separated_distillation(student_logits=student, teacher_logits=teacher, tasks=task_slices((4,))),
    )


def test_a_class_100_places_before_the_new_task_is_not_silently_ignored():
    # torch's cross-entropy skips the target −100 unless told otherwise
    with pytest.raises(IndexError):
        objective("finetune")(
            student_logits=torch.randn(2, 102),
            teacher_logits=None,
            targets=torch.tensor([0, 101]),
            task_sizes=(100, 2),
            rehearsal=False,
        )


def test_under_autocast_everything_is_float32():
    logits, teacher, targets = (torch.tensor(array) for array in minibatch((2, 3), rehearsal=True))
    coarse, coarse_teacher = logits.bfloat16().requires_grad_(), teacher.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = FULL(
            student_logits=coarse, teacher_logits=coarse_teacher, targets=targets, task_sizes=(2, 3), rehearsal=True
        )
    exact = FULL(
        student_logits=coarse.double(),
        teacher_logits=coarse_teacher.double(),
        targets=targets,
        task_sizes=(2, 3),
        rehearsal=True,
    )
    assert {part.dtype for part in loss.parts.values()} == {torch.float32}
    assert loss.total.item() == pytest.approx(exact.total.item(), rel=1e-6)  # bfloat16 would be off by 1e-3


def test_large_logits_stay_finite():
    student = torch.tensor([[1e4, -1e4, 1e4, -1e4]], requires_grad=True)
    loss = FULL(
        student_logits=student,
        teacher_logits=torch.tensor([[-1e4, 1e4]]),
        targets=torch.tensor([3]),
        task_sizes=(2, 2),
        rehearsal=False,
    )
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


GOOD = {
    "student_logits": torch.zeros(4, 5),
    "teacher_logits": torch.zeros(4, 2),
    "targets": torch.full((4,), 3),
    "task_sizes": (2, 3),
    "rehearsal": False,
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"student_logits": torch.zeros(4, 6)}, r"student_logits: expected .*\[batch, 5\], got .*\[4, 6\]"),
        ({"student_logits": torch.zeros(4, 5, dtype=torch.int64)}, "student_logits: expected floating point"),
        ({"student_logits": torch.zeros(0, 5), "targets": torch.zeros(0, dtype=torch.int64)}, "minibatch is empty"),
        ({"teacher_logits": None}, r"teacher_logits: expected \[4, 2\], got None"),
        ({"teacher_logits": torch.zeros(4, 5)}, r"teacher_logits: expected \[4, 2\], got \[4, 5\]"),
        ({"targets": torch.zeros(4)}, r"targets: expected int64 \[4\], got torch.float32"),
        ({"targets": torch.zeros(4, 1, dtype=torch.int64)}, r"targets: expected int64 \[4\], got .*\[4, 1\]"),
        ({"task_sizes": ()}, "at least one task"),
        ({"task_sizes": (5, 0)}, "at least one class"),
        ({"task_sizes": (5,)}, r"teacher_logits: expected \[4, 0\] or None, got \[4, 2\]"),
    ],
)
def test_wrong_input_says_what_was_expected_and_what_came(wrong, message):
    with pytest.raises(ValueError, match=message):
        objective("lwf")(**(GOOD | wrong))


@pytest.mark.parametrize(
    "hyper",
    [{"temperature": 0.0}, {"distillation_weight": -1.0}, {"label_smoothing": 1.0}, {"task_reduction": "max"}],
    ids=str,
)
def test_meaningless_hyper_parameters_are_refused_by_name(hyper):
    with pytest.raises(ValueError, match=next(iter(hyper))):
        objective("lwf", **hyper)
