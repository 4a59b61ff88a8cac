"""Weight alignment: what it makes equal, and what it leaves alone."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from trainer.learning.alignment import align_weights
from trainer.networks import IncrementalNetwork, build


def network(*task_sizes: int) -> IncrementalNetwork:
    """Heads of rows that grow longer from task to task."""
    torch.manual_seed(0)
    made = build("resnet32", channels=3, image_size=8)
    for number, classes in enumerate(task_sizes, start=1):
        made.add_task(classes)
        nn.init.normal_(made.heads[-1].get_parameter("weight"), std=number)
        nn.init.normal_(made.heads[-1].get_parameter("bias"))
    return made.eval()


def rows(of: IncrementalNetwork) -> list[np.ndarray]:
    return [head.get_parameter("weight").detach().double().numpy() for head in of.heads]


@pytest.mark.parametrize("task_sizes", [(2, 3), (1, 4, 2), (5, 1, 1, 1)])
def test_new_rows_are_scaled_by_the_ratio_of_the_mean_norms(task_sizes):
    made = network(*task_sizes)
    *old, new = rows(copy.deepcopy(made))
    ratio = np.linalg.norm(np.concatenate(old), axis=1).mean() / np.linalg.norm(new, axis=1).mean()
    assert ratio < 0.9
    align_weights(made)
    assert rows(made)[-1] == pytest.approx(new * ratio, rel=1e-5)


def test_all_but_the_new_rows_stays_to_the_last_bit():
    made = network(2, 3, 2)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    align_weights(made)
    changed = {name for name, tensor in made.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"heads.2.weight"}
    assert all(parameter.requires_grad for parameter in made.parameters())


def test_short_new_rows_are_lengthened():
    made = network(2, 2)
    with torch.no_grad():
        made.heads[1].get_parameter("weight").mul_(0.01)
    align_weights(made)
    first, second = (np.linalg.norm(part, axis=1).mean() for part in rows(made))
    assert second == pytest.approx(first, rel=1e-5)


def test_a_second_time_changes_nothing_any_more():
    made = network(3, 2)
    align_weights(made)
    once = copy.deepcopy(made)
    align_weights(made)
    assert rows(made)[1] == pytest.approx(rows(once)[1], rel=1e-6)


def test_a_first_task_has_nothing_to_be_aligned_with():
    made = network(4)
    before = rows(copy.deepcopy(made))
    align_weights(made)
    assert np.array_equal(rows(made)[0], before[0])


def test_cosine_heads_are_refused():
    made = build("resnet32", channels=3, image_size=8, head_kind="cosine")
    made.add_task(2)
    made.add_task(2)
    with pytest.raises(ValueError, match="cosine"):
        align_weights(made)
