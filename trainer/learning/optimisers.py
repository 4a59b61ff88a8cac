"""The optimiser of an increment: stochastic gradient descent."""

from collections.abc import Iterable
from inspect import unwrap
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from trainer.networks.incremental import FIRST_SCALE
from trainer.recipes import Recipe


class EagerSGD(SGD):
    """torch's SGD without the wrappers for torch.compile.

    torch wraps the methods of its optimisers in functions that import torch._dynamo at their first call. That takes
    1.3 s of every increment, and nothing is ever compiled. The methods inside the wrappers are the same.
    """

    state_dict = unwrap(SGD.state_dict)
    load_state_dict = unwrap(SGD.load_state_dict)
    zero_grad = unwrap(SGD.zero_grad)
    add_param_group = unwrap(SGD.add_param_group)
    step = torch.no_grad()(unwrap(SGD.step))  # its wrapper also turned gradients off


def sgd(recipe: Recipe, trained: Iterable[nn.Parameter], device: torch.device) -> Optimizer:
    """SGD with the recipe's rate, momentum and weight decay, fused where torch can.

    The only scalar parameter is log η, with the scale η of cosine heads. It has no weight decay, as there is no reason
    to pull it to 0. It has a learning rate of its own, with which η moves as if η were the parameter: d log η = dη / η
    applies to the gradient and to the step.
    """
    of_shape: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for parameter in trained:
        of_shape[parameter.ndim == 0].append(parameter)
    scale_rate = recipe.learning_rate / FIRST_SCALE**2
    groups: list[dict[str, Any]] = [
        {"params": of_shape[False]},
        {"params": of_shape[True], "weight_decay": 0.0, "lr": scale_rate},
    ]
    return EagerSGD(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
        fused=device.type in {"cpu", "cuda"},
    )
