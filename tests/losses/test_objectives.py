"""Every strategy's objective against the reference, in value and gradient, in every precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from losses import objective
from tests.losses import reference
from tests.losses.minibatches import DIFFERENTIABLE, each_shown, each_task_sizes, gradients, minibatch
from tests.losses.reference import Hyper

each_strategy = pytest.mark.parametrize("name", reference.NAMES)
UNEVEN = (2, 5, 1, 3)
LEVELS = (1e4, -1e4, 3e3, -7e3)
ALTERED = {
    "task_reduction": "mean",
    "label_smoothing": 0.2,
    "distillation_weight": 1.7,
    "temperature": 3.0,
    "attention_weight": 0.3,
    "margin_weight": 0.6,
    "margin": 0.9,
    "hardest_classes": 3,
}
each_hyper = pytest.mark.parametrize("hyper", [{}, ALTERED], ids=["as published", "altered"])


def values(parts) -> dict[str, float]:
    return {name: part.item() for name, part in parts.items()}


@each_strategy
@each_task_sizes
@each_shown
@each_hyper
def test_every_part_equals_the_reference(name, task_sizes, shown, hyper):
    given = minibatch(task_sizes, shown=shown)
    loss = objective(name, **hyper)(**given.tensors())
    expected = reference.parts(name, given, Hyper(**hyper))
    assert values(loss.parts) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert float(loss.total) == pytest.approx(sum(expected.values()), rel=1e-10, abs=1e-10)


@each_strategy
@pytest.mark.parametrize("task_sizes", [(3,), (3, 1), (1, 2, 1, 3)], ids=str)
@each_shown
@each_hyper
def test_every_gradient_equals_finite_differences_of_the_reference(name, task_sizes, shown, hyper):
    given = minibatch(task_sizes, shown=shown, seed=1, batch=3, dimensions=3, side=2)
    chosen, step = Hyper(**hyper), 1e-5
    assert reference.distance_to_kinks(name, given, chosen) > 100 * step
    keywords = given.tensors(requires_grad=True)
    objective(name, **hyper)(**keywords).total.backward()
    found = gradients(keywords)
    for argument in DIFFERENTIABLE:
        array = getattr(given, argument)
        differences = np.zeros_like(array)
        for place in np.ndindex(*array.shape):
            nudge = np.zeros_like(array)
            nudge[place] = step
            up, down = (
                reference.total(name, replace(given, **{argument: array + sign * nudge}), chosen) for sign in (1, -1)
            )
            differences[place] = (up - down) / (2 * step)
        gradient = found.get(argument, torch.zeros(array.shape, dtype=torch.float64))
        np.testing.assert_allclose(gradient.numpy(), differences, rtol=1e-7, atol=5e-9, err_msg=argument)
    assert all(keywords[f"teacher_{kind}"].grad is None for kind in ("features", "attention"))
    assert keywords["teacher_logits"] is None or keywords["teacher_logits"].grad is None


@each_strategy
@each_shown
def test_float32_is_as_exact_as_its_rounding(name, shown):
    given = minibatch(UNEVEN, shown=shown, batch=16).rounded(torch.float32)
    single, double = given.tensors(torch.float32, requires_grad=True), given.tensors(requires_grad=True)
    loss = objective(name)(**single)
    assert values(loss.parts) == pytest.approx(reference.parts(name, given, Hyper()), rel=2e-6, abs=1e-7)
    loss.total.backward()
    objective(name)(**double).total.backward()
    exact = gradients(double)
    assert gradients(single).keys() == exact.keys()
    for argument, gradient in gradients(single).items():
        torch.testing.assert_close(gradient.double(), exact[argument], rtol=1e-5, atol=1e-6)


@each_strategy
@each_shown
def test_under_autocast_the_loss_of_coarse_inputs_is_computed_in_float32(name, shown):
    given = minibatch(UNEVEN, shown=shown, batch=16).rounded(torch.bfloat16)
    coarse, double = given.tensors(torch.bfloat16, requires_grad=True), given.tensors(requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(name)(**coarse)
    assert {part.dtype for part in loss.parts.values()} == {torch.float32}
    assert values(loss.parts) == pytest.approx(reference.parts(name, given, Hyper()), rel=2e-6, abs=1e-7)
    loss.total.backward()
    objective(name)(**double).total.backward()
    exact = gradients(double)
    for argument, gradient in gradients(coarse).items():
        assert gradient.dtype == torch.bfloat16  # as autograd must; the only rounding is that of the result
        torch.testing.assert_close(gradient.double(), exact[argument], rtol=2**-8, atol=1e-6)


@each_strategy
@each_shown
@pytest.mark.parametrize("temperature", [2.0, 3.0])
@pytest.mark.parametrize("same_levels", [True, False], ids=["teacher at them", "teacher elsewhere"])
def test_tasks_at_levels_far_apart_cost_no_digits(name, shown, temperature, same_levels):
    given = minibatch(UNEVEN, shown=shown, batch=16)
    level = np.repeat(LEVELS, UNEVEN)
    assert given.teacher_logits is not None
    given = replace(
        given,
        student_logits=given.student_logits + level,
        teacher_logits=given.teacher_logits + (1 if same_levels else -1) * level[: given.teacher_logits.shape[1]],
    ).rounded(torch.float32)
    single, double = given.tensors(torch.float32, requires_grad=True), given.tensors(requires_grad=True)
    loss = objective(name, temperature=temperature)(**single)
    expected = reference.parts(name, given, Hyper(temperature=temperature))
    assert values(loss.parts) == pytest.approx(expected, rel=2e-6, abs=1e-7)
    loss.total.backward()
    objective(name, temperature=temperature)(**double).total.backward()
    exact = gradients(double)
    for argument, gradient in gradients(single).items():
        torch.testing.assert_close(gradient.double(), exact[argument], rtol=1e-5, atol=1e-6)


@each_strategy
@pytest.mark.parametrize("first", [None, torch.zeros(5, 0)], ids=["no teacher", "a teacher of no classes"])
def test_at_the_first_task_nothing_is_kept(name, first):
    keywords = minibatch((4,), shown="new").tensors() | {"teacher_logits": first}
    assert set(objective(name)(**keywords).parts) <= {"classification", "binary_prediction"}


@each_strategy
def test_at_the_first_task_only_logits_and_targets_are_asked_for(name):
    keywords = minibatch((4,), shown="new").tensors()
    asked = {key: keywords[key] for key in ("student_logits", "teacher_logits", "targets", "task_sizes", "shown")}
    assert torch.equal(objective(name)(**asked).total, objective(name)(**keywords).total)


def test_values_one_can_compute_by_hand():
    # Two old classes the teacher cannot tell apart and the student neither: J = ln 2; new task: −ln(e / (e + 1)).
    loss = objective("lwf")(
        student_logits=torch.tensor([[4.0, 4.0, 1.0, 0.0]]),
        teacher_logits=torch.tensor([[9.0, 9.0]]),
        targets=torch.tensor([2]),
        task_sizes=(2, 2),
        shown=(0, 0, 1, 1),
    )
    assert values(loss.parts) == pytest.approx({"joint": np.log(2), "classification": np.log(1 + np.exp(-1))}, rel=1e-6)


@pytest.mark.parametrize(("task_sizes", "weight"), [((4, 1), 10.0), ((1, 4), 2.5), ((3, 5, 2), 10.0), ((9, 1), 15.0)])
def test_what_lucir_keeps_weighs_five_times_the_root_of_old_to_new_classes(task_sizes, weight):
    keywords = minibatch(task_sizes, shown="all").tensors()
    keywords["student_features"], keywords["teacher_features"] = torch.eye(5), torch.eye(5).roll(1, 0)  # 1 − cos = 1
    assert float(objective("lucir")(**keywords).parts["less_forget"]) == pytest.approx(weight, rel=1e-12)


@each_strategy
def test_without_a_new_task_every_task_is_kept_with_a_factor_of_one_and_nothing_is_ranked(name):
    keywords = minibatch((2, 3, 2), shown="all").tensors()
    beside_new = objective(name)(**keywords).parts
    logits, targets = keywords["student_logits"][:, :5], keywords["targets"] % 5
    alone = keywords | {"student_logits": logits, "targets": targets, "task_sizes": (2, 3), "shown": (7,) * 5}
    loss = objective(name)(**alone, old_tasks=2)
    parts = dict(loss.parts)
    assert bool(loss.total.isfinite())
    assert float(parts.pop("classification")) == pytest.approx(float(F.cross_entropy(logits, targets)))
    assert ("binary_prediction" in parts) == ("binary_prediction" in beside_new)
    parts.pop("binary_prediction", None)
    factors = {term: np.sqrt(5 / 2) if name.startswith("lucir") else 1.0 for term in beside_new}
    kept = beside_new.keys() - {"classification", "binary_prediction", "margin_ranking"}
    assert values(parts) == pytest.approx({term: float(beside_new[term]) / factors[term] for term in kept})


@pytest.mark.parametrize("old_tasks", [-1, 0, 3])
def test_old_tasks_are_all_or_all_but_the_last(old_tasks):
    with pytest.raises(ValueError, match="old_tasks"):
        objective("lwf")(**minibatch((2, 3), shown="all").tensors(), old_tasks=old_tasks)


@pytest.mark.parametrize("name", ["finetune", "lwf", "lwf-s", "lwf-br2", "lwm-bsr"])
def test_without_rehearsal_labels_teach_the_old_heads_nothing(name):
    keywords = minibatch((3, 2), shown="new").tensors(requires_grad=True)
    parts = objective(name)(**keywords).parts
    labelled = [parts[kind] for kind in ("classification", "binary_prediction") if kind in parts]
    torch.stack(labelled).sum().backward()
    assert not keywords["student_logits"].grad[:, :3].any()
    assert keywords["student_logits"].grad[:, 3:].all()


@pytest.mark.parametrize("name", ["finetune", "lwf", "lwm-br2", "joint"])
def test_labels_teach_nothing_to_classes_of_which_nothing_is_shown(name):
    keywords = minibatch((3, 2, 2), shown="some").tensors(requires_grad=True)
    assert keywords["shown"][:5] == (0, 4, 0, 6, 0)
    parts = objective(name)(**keywords).parts
    labelled = [parts[kind] for kind in ("classification", "binary_prediction") if kind in parts]
    torch.stack(labelled).sum().backward()
    reached = keywords["student_logits"].grad.ne(0).any(dim=0)
    assert reached.tolist() == [count > 0 for count in keywords["shown"]]


def test_counts_may_be_a_tensor():
    keywords = minibatch((3, 2), shown="some").tensors()
    counted = keywords | {"shown": torch.tensor(keywords["shown"])}
    assert torch.equal(objective("lwf")(**counted).total, objective("lwf")(**keywords).total)


@pytest.mark.parametrize("name", ["lucir", "lucir-br2"])
def test_lucir_learns_labels_over_all_classes_also_without_rehearsal(name):
    keywords = minibatch((3, 2), shown="new").tensors()
    alone, rehearsed = (
        objective(name)(**keywords | {"shown": counts}).parts for counts in ((0, 0, 0, 2, 2), (1, 1, 1, 2, 2))
    )
    assert values(alone) == values(rehearsed)
    assert float(alone["margin_ranking"]) == 0  # no old images


def test_a_class_100_places_before_the_new_task_is_not_silently_ignored():
    # torch's cross-entropy skips the target −100 unless told otherwise
    with pytest.raises(IndexError):
        objective("finetune")(
            student_logits=torch.randn(2, 102),
            teacher_logits=None,
            targets=torch.tensor([0, 101]),
            task_sizes=(100, 2),
            shown=[0] * 100 + [1, 1],
        )


def test_a_loss_computed_in_inference_mode_leaves_training_as_it_was():
    given = minibatch((2, 1, 4, 2), shown="all")  # sizes of no other test, so that nothing about them is kept yet
    with torch.inference_mode():
        before = objective("lwf-bsr")(**given.tensors()).total.item()
    keywords = given.tensors(requires_grad=True)
    after = objective("lwf-bsr")(**keywords).total
    after.backward()
    assert after.item() == before
    assert keywords["student_logits"].grad.all()
