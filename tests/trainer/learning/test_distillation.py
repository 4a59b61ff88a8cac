"""A minibatch's loss: what of student and teacher reaches the objective, and what gradient comes back."""

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from losses import objective
from losses.objectives import Objective
from losses.strategies import HeadKind, get
from trainer.learning.distillation import DistillationStep
from trainer.learning.optimisers import sgd
from trainer.networks import EvaluationTransform, IncrementalNetwork, build
from trainer.networks.gradcam import attention_maps
from trainer.recipes import resolve


def network(*task_sizes: int, head_kind: HeadKind = "linear", seed: int = 0) -> IncrementalNetwork:
    torch.manual_seed(seed)
    return build("resnet32", channels=3, image_size=16, task_sizes=task_sizes, head_kind=head_kind)


def distillation(strategy: str | Objective, *, shown: tuple[int, ...] = (1,) * 7) -> DistillationStep:
    """Two old tasks of two classes, a new one of three; the student differs from its teacher."""
    chosen = objective(strategy) if isinstance(strategy, str) else strategy
    head_kind: HeadKind = "cosine" if chosen.asks_for("student_scale") else "linear"
    teacher = network(2, 2, head_kind=head_kind).eval().requires_grad_(False)
    student = network(2, 2, 3, head_kind=head_kind, seed=1)
    return DistillationStep(student, teacher if chosen.distils else None, chosen, shown, old_tasks=2)


def minibatch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(6, 3, 16, 16, generator=generator), torch.tensor([0, 1, 2, 4, 5, 6])


class HostWatch(TorchFunctionMode):
    """Notes what makes a device wait for the host; what reads a number back fails by itself on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        devices = {tensor.device.type for tensor in tree_leaves((args, kwargs, found)) if isinstance(tensor, Tensor)}
        if devices - {"meta"} or function in {torch.tensor, torch.as_tensor}:
            self.seen.append(torch.overrides.resolve_name(function) or repr(function))
        return found


@pytest.mark.parametrize(
    "strategy", ["finetune", "joint", "lwf-s", "lwf-bsr", "lwm-br2", "lwm-bsr", "lucir", "lucir-bsr"]
)
@pytest.mark.parametrize("shown", [(1,) * 7, (0, 0, 1, 0, 1, 1, 1), (0, 0, 0, 0, 1, 1, 1)])
def test_a_step_neither_reads_from_its_device_nor_sends_anything_there(strategy, shown, monkeypatch):
    """On torch's meta device, which holds no values that could be read."""
    # The losses leave the precision of their surroundings, and this device has none.
    monkeypatch.setattr(torch, "autocast", lambda *_arguments, **_options: nullcontext())
    taught = distillation(strategy, shown=shown)
    taught.student.to("meta")
    if taught.teacher is not None:
        taught.teacher.to("meta")
    optimiser = sgd(resolve(strategy), taught.student.parameters(), torch.device("meta"))
    transform = EvaluationTransform(16, 3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    pixels = torch.empty(6, 3, 16, 16, dtype=torch.uint8, device="meta")
    targets = torch.empty(6, dtype=torch.int64, device="meta")

    def step() -> None:
        taught.loss(transform.normalise(pixels), targets).total.backward()
        nn.utils.clip_grad_norm_(taught.student.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    step()  # what is needed throughout is sent there once
    with HostWatch() as watch:
        step()
    assert watch.seen == []


@pytest.mark.parametrize("strategy", ["finetune", "lwf-bsr", "lwm", "lwm-br2", "lucir", "lucir-bsr"])
def test_the_parts_of_the_strategy_are_those_of_its_weights(strategy):
    expected = {term for term, weight in get(strategy).weights.items() if weight}
    assert set(distillation(strategy).loss(*minibatch()).parts) == expected


def test_a_term_that_counts_nothing_asks_for_nothing():
    """Neither for a teacher, nor for maps, which are what an increment with these terms waits for."""
    without_attention = distillation(objective("lwm", attention_weight=0.0))
    assert without_attention.teacher is not None
    assert "attention" not in without_attention.loss(*minibatch()).parts
    alone = distillation(objective("lwm-bsr", attention_weight=0.0, distillation_weight=0.0))
    assert alone.teacher is None
    assert set(alone.loss(*minibatch()).parts) == {"classification"}


@pytest.mark.parametrize(("strategy", "passes"), [("finetune", 0), ("lwf", 1), ("lwm-bsr", 1), ("lucir", 1)])
def test_the_teacher_sees_a_minibatch_once_or_not_at_all(strategy, passes):
    taught = distillation(strategy)
    seen: list[int] = []
    if taught.teacher is not None:
        taught.teacher.backbone.register_forward_hook(lambda *_: seen.append(1))
    taught.student.backbone.register_forward_hook(lambda *_: seen.append(10))
    taught.loss(*minibatch()).total.backward()
    assert sum(seen) == 10 + passes


def test_attention_is_compared_for_the_teacher_s_likeliest_class():
    taught = distillation(Objective({"classification": 1.0, "attention": 1.0}))
    taught.student.eval()
    inputs, targets = minibatch()
    found = taught.loss(inputs, targets).parts["attention"].detach()
    assert taught.teacher is not None
    classes = taught.teacher(inputs).argmax(1)
    maps = [
        attention_maps(each.observe(inputs, stage=True), classes=classes).flatten(1)
        for each in (taught.student, taught.teacher)
    ]
    unit = [each / each.norm(dim=1, keepdim=True).clamp_min(1e-12) for each in maps]
    assert float(found) == pytest.approx(float((unit[0] - unit[1]).abs().sum(1).mean().detach()), rel=1e-5)


def test_attention_has_a_gradient_and_a_step_along_it_lowers_the_term():
    taught = distillation(Objective({"classification": 1.0, "attention": 1.0}))
    taught.student.eval()  # so that the second look is at the same network
    inputs, targets = minibatch()
    term = taught.loss(inputs, targets).parts["attention"]
    term.backward()
    before = term.detach()
    moved = [parameter for parameter in taught.student.parameters() if parameter.grad is not None]
    reached = {name for name, parameter in taught.student.named_parameters() if parameter.grad is not None}
    assert "backbone.conv1.weight" in reached
    norm = torch.cat([parameter.grad.flatten() for parameter in moved if parameter.grad is not None]).norm()
    assert float(norm) > 1e-3
    with torch.no_grad():
        for parameter in moved:
            assert parameter.grad is not None
            parameter.sub_(1e-3 / norm * parameter.grad)
    after = taught.loss(inputs, targets).parts["attention"].detach()
    assert float(after) == pytest.approx(float(before - 1e-3 * norm), abs=2e-4 * float(norm))
    assert float(after) < float(before)


@pytest.mark.parametrize("strategy", ["lwf", "lwm-bsr", "lucir-bsr"])
def test_the_teacher_stays_as_it_is_and_without_gradient(strategy):
    taught = distillation(strategy)
    assert taught.teacher is not None
    before = copy.deepcopy(taught.teacher.state_dict())
    taught.loss(*minibatch()).total.backward()
    assert all(parameter.grad is None for parameter in taught.teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in taught.teacher.state_dict().items())


@pytest.mark.parametrize("strategy", ["lwf-bsr", "lwm", "lucir-br2"])
@pytest.mark.parametrize("shown", [(0, 0, 0, 0, 1, 1, 1), (1, 1, 1, 0, 1, 1, 1)])
def test_validation_goes_by_the_classification_term_alone(strategy, shown):
    taught = distillation(strategy, shown=shown)
    taught.student.eval()
    inputs, targets = minibatch()
    inputs, targets = (inputs, targets) if shown[0] else (inputs[3:], targets[3:])
    found = taught.classification(inputs, targets)
    assert float(found) == pytest.approx(float(taught.loss(inputs, targets).parts["classification"].detach()), rel=1e-6)
