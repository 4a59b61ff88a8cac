"""Optimisers: they do what torch's own do, and start at once."""

import subprocess
import sys

import torch
from torch import nn

from trainer.learning import optimisers
from trainer.networks import build
from trainer.recipes import Recipe

STEPS = """
import sys, torch
from torch import nn
from trainer.learning import optimisers
from trainer.networks import build
from trainer.recipes import Recipe
module = nn.Linear(3, 2)
optimiser = optimisers.sgd(Recipe(momentum=0.9), module.parameters(), torch.device("cpu"))
for _ in range(2):
    optimiser.zero_grad(set_to_none=True)
    module(torch.ones(4, 3)).sum().backward()
    optimiser.step()
optimiser.load_state_dict(optimiser.state_dict())
print("torch._dynamo" in sys.modules)
"""


def test_no_increment_waits_for_a_compiler_that_it_does_not_use():
    told = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "False"


def test_a_scale_does_not_decay_and_all_else_does():
    network = build("resnet32", channels=1, image_size=8, task_sizes=(2,), head_kind="cosine")
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    recipe = Recipe(learning_rate=0.1, weight_decay=0.5, momentum=0.0)
    optimiser = optimisers.sgd(recipe, network.parameters(), torch.device("cpu"))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for name, parameter in network.named_parameters():
        kept = 1.0 if name == "log_scale" else 0.95
        torch.testing.assert_close(parameter.detach(), kept * before[name])


def test_steps_are_those_of_torch():
    weights = []
    for make in (
        lambda parameters: optimisers.sgd(
            Recipe(momentum=0.9, learning_rate=0.1, weight_decay=0.01), parameters, torch.device("cpu")
        ),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    ):
        torch.manual_seed(1)
        module = nn.Linear(5, 4)
        optimiser = make(module.parameters())
        for step in range(5):
            optimiser.zero_grad(set_to_none=True)
            module(torch.full((3, 5), step / 5.0)).square().sum().backward()
            optimiser.step()
        weights.append(module.weight.detach().clone())
    ours, torchs = weights
    assert torch.allclose(ours, torchs, atol=1e-6)
