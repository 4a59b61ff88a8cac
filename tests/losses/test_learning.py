"""Ten tasks learned with LUCIR's objectives, images of all at hand: a linear map for a backbone, and a cosine head."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losses import objective

TASKS, CLASSES_EACH, DIMENSIONS = 10, 2, 16
CLASSES = TASKS * CLASSES_EACH


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(DIMENSIONS, DIMENSIONS)
        self.rows = nn.ParameterList()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def add_task(self) -> None:
        self.rows.requires_grad_(False)  # old head rows stay as they are
        self.rows.append(torch.randn(CLASSES_EACH, DIMENSIONS) / DIMENSIONS**0.5)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(images)
        return features, self.scale * F.normalize(features) @ F.normalize(torch.cat(list(self.rows))).t()


@pytest.mark.parametrize("name", ["lucir", "lucir-s", "lucir-sr", "lucir-br", "lucir-br2", "lucir-bsr"])
def test_lucir_stays_finite_and_learns_over_ten_tasks(name):
    torch.manual_seed(0)
    centres = 2 * torch.randn(CLASSES, DIMENSIONS)

    def draw(classes: range, count: int) -> tuple[Tensor, Tensor]:
        targets = torch.randint(classes.start, classes.stop, (count,))
        return centres[targets] + torch.randn(count, DIMENSIONS), targets

    network, teacher = Network(), None
    for task in range(TASKS):
        network.add_task()
        learn(name, network, teacher, lambda seen=CLASSES_EACH * (task + 1): draw(range(seen), 48))
        teacher = copy.deepcopy(network).requires_grad_(False)
    for classes, least in ((range(CLASSES), 0.8), (range(CLASSES_EACH), 0.8), (range(CLASSES)[-CLASSES_EACH:], 0.5)):
        images, targets = draw(classes, 500)
        correct = network(images)[1].argmax(dim=1) == targets  # among all classes: 5 % by chance
        assert correct.float().mean() > least


def learn(name: str, network: Network, teacher: Network | None, draw) -> None:
    """One task."""
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    for _ in range(30):
        images, targets = draw()
        features, logits = network(images)
        kept_features, kept_logits = (None, None) if teacher is None else teacher(images)
        loss = objective(name)(
            student_logits=logits,
            teacher_logits=kept_logits,
            targets=targets,
            task_sizes=[CLASSES_EACH] * len(network.rows),
            rehearsal=True,
            student_features=features,
            teacher_features=kept_features,
            student_scale=network.scale,
        )
        assert all(part.isfinite() for part in loss.parts.values())
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
