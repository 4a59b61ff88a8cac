"""What an objective refuses, and how it says so."""

import pytest
import torch

from losses import objective
from tests.losses import reference
from tests.losses.minibatches import minibatch

GOOD = minibatch((2, 3), shown="new").tensors(torch.float32)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("lwf", {"student_logits": torch.zeros(5, 6)}, r"student_logits: expected .*\[batch, 5\], got .*\[5, 6\]"),
        ("lwf", {"student_logits": torch.zeros(5)}, r"student_logits: expected .*\[batch, 5\], got .*\[5\]"),
        (
            "lwf",
            {"student_logits": torch.zeros(5, 5, dtype=torch.int64)},
            "student_logits: expected floating point .*int64",
        ),
        ("lwf", {"student_logits": torch.zeros(0, 5), "targets": torch.zeros(0, dtype=torch.int64)}, "batch is empty"),
        ("lwf", {"teacher_logits": torch.zeros(5, 5)}, r"teacher_logits: expected \[5, 2\], got \[5, 5\]"),
        ("finetune", {"teacher_logits": torch.zeros(4, 2)}, r"teacher_logits: expected \[5, 2\], got \[4, 2\]"),
        ("lwf", {"targets": torch.zeros(5)}, r"targets: expected int64 \[5\], got torch.float32"),
        ("lwf", {"targets": torch.zeros(5, 1, dtype=torch.int64)}, r"targets: expected int64 \[5\], got .*\[5, 1\]"),
        ("lwf", {"task_sizes": ()}, "at least one task"),
        ("lwf", {"task_sizes": (5, 0)}, "at least one class"),
        ("lwf", {"shown": (1, 1, 1)}, r"shown: expected images of each of 5 classes.* got \[1, 1, 1\]"),
        ("lwf", {"shown": (0, 0, 0, 0, 0)}, "shown: expected images of each of 5 classes, not negative and not all 0"),
        ("lwf", {"shown": (0, 0, 2, 2, -1)}, "shown: expected .*not negative"),
        ("lwf", {"task_sizes": (5,)}, r"teacher_logits: expected \[5, 0\] or None, got \[5, 2\]"),
        ("lwm", {"student_attention": torch.zeros(5, 9)}, r"student_attention: expected \[batch, h, w\].*got \[5, 9\]"),
        ("lwm", {"student_attention": torch.zeros(4, 3, 3)}, r"student_attention: .*batch = 5, got \[4, 3, 3\]"),
        (
            "lwm",
            {"teacher_attention": torch.zeros(5, 3, 4)},
            r"teacher_attention: expected \[5, 3, 3\], got \[5, 3, 4\]",
        ),
        (
            "lucir",
            {"student_features": torch.zeros(5, 4, 1)},
            r"student_features: expected \[batch, dim\].*got \[5, 4, 1\]",
        ),
        ("lucir", {"teacher_features": torch.zeros(5, 3)}, r"teacher_features: expected \[5, 4\], got \[5, 3\]"),
        ("lucir", {"student_scale": torch.ones(5)}, r"student_scale: expected a scalar, got \[5\]"),
        ("lucir", {"student_scale": torch.ones(1, 1, 1)}, r"student_scale: expected a scalar, got \[1, 1, 1\]"),
    ],
)
def test_wrong_input_says_what_was_expected_and_what_came(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        objective(name)(**(GOOD | wrong))


@pytest.mark.parametrize(
    ("names", "argument"),
    [
        ([name for name in reference.NAMES if name not in {*reference.BASELINES, "lucir"}], "teacher_logits"),
        (["lwm", "lwm-bsr"], "student_attention"),
        (["lwm", "lwm-s"], "teacher_attention"),
        (["lucir", "lucir-bsr"], "student_features"),
        (["lucir", "lucir-br2"], "teacher_features"),
        (["lucir", "lucir-s"], "student_scale"),
    ],
)
def test_what_is_missing_is_asked_for_by_name(names, argument):
    for name in names:
        with pytest.raises(ValueError, match=f"^{argument}: this objective needs it .* got None"):
            objective(name)(**(GOOD | {argument: None}))


def test_a_scale_may_be_a_vector_of_one():
    keywords = minibatch((2, 3), shown="all").tensors()
    one = keywords | {"student_scale": keywords["student_scale"].reshape(1)}
    assert torch.equal(objective("lucir")(**one).total, objective("lucir")(**keywords).total)


@pytest.mark.parametrize(
    "hyper",
    [
        {"temperature": 0.0},
        {"temperature": float("inf")},
        {"distillation_weight": -1.0},
        {"distillation_weight": float("nan")},
        {"attention_weight": -1.0},
        {"margin_weight": -1.0},
        {"margin": -0.1},
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
        {"task_reduction": "max"},
        {"hardest_classes": 0},
    ],
    ids=str,
)
def test_meaningless_hyper_parameters_are_refused_by_name(hyper):
    with pytest.raises(ValueError, match=f"^{next(iter(hyper))} is "):
        objective("lwf", **hyper)
