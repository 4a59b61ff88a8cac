"""Ten tasks learned with LUCIR's objectives, images of all at hand: a linear map for a backbone, and a cosine head."""

import copy

import pytest
import torch
from torch import Tensor, nn

from losses import objective
from trainer.learning.optimisers import sgd
from trainer.networks import IncrementalNetwork
from trainer.recipes import Recipe

TASKS, CLASSES_EACH, DIMENSIONS = 10, 2, 16
CLASSES = TASKS * CLASSES_EACH


def network_of_no_task() -> IncrementalNetwork:
    """The service's own heads and scale, at the values they start from."""
    return IncrementalNetwork(
        nn.Linear(DIMENSIONS, DIMENSIONS),
        name="map",
        channels=1,
        image_size=1,
        dim=DIMENSIONS,
        classifier="none",
        head_kind="cosine",
    )


@pytest.mark.parametrize("name", ["lucir", "lucir-s", "lucir-sr", "lucir-br", "lucir-br2", "lucir-bsr"])
def test_lucir_stays_finite_and_learns_over_ten_tasks(name):
    torch.manual_seed(0)
    centres = 2 * torch.randn(CLASSES, DIMENSIONS)

    def draw(classes: range, count: int) -> tuple[Tensor, Tensor]:
        targets = torch.randint(classes.start, classes.stop, (count,))
        return centres[targets] + torch.randn(count, DIMENSIONS), targets

    network, teacher = network_of_no_task(), None
    for task in range(TASKS):
        network.heads.requires_grad_(False)  # old head rows stay as they are
        network.add_task(CLASSES_EACH)
        learn(name, network, teacher, lambda seen=CLASSES_EACH * (task + 1): draw(range(seen), 48))
        teacher = copy.deepcopy(network).requires_grad_(False)
    for classes, least in ((range(CLASSES), 0.8), (range(CLASSES_EACH), 0.8), (range(CLASSES)[-CLASSES_EACH:], 0.5)):
        images, targets = draw(classes, 500)
        correct = network(images).argmax(dim=1) == targets  # among all classes: 5 % by chance
        assert correct.float().mean() > least


def learn(name: str, network: IncrementalNetwork, teacher: IncrementalNetwork | None, draw) -> None:
    """One task."""
    optimiser = sgd(Recipe(), [p for p in network.parameters() if p.requires_grad], torch.device("cpu"))
    for _ in range(30):
        images, targets = draw()
        shown = network.observe(images)
        kept = None if teacher is None else teacher.observe(images)
        loss = objective(name)(
            student_logits=shown.logits,
            teacher_logits=kept.logits if kept else None,
            targets=targets,
            task_sizes=network.task_sizes,
            shown=[1] * sum(network.task_sizes),
            student_features=shown.features,
            teacher_features=kept.features if kept else None,
            student_scale=network.scale,
        )
        assert all(part.isfinite() for part in loss.parts.values())
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
