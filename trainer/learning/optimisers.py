"""Stochastic gradient descent as an increment takes it."""

from collections.abc import Iterable
from inspect import unwrap
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from trainer.networks.incremental import FIRST_SCALE
from trainer.recipes import Recipe


class EagerSGD(SGD):
    """torch's SGD without what keeps torch.compile away from it, or lets it in.

    The methods of torch's optimisers are wrapped in functions that import torch._dynamo when they are called first:
    1.3 s of every increment, in which nothing is ever compiled. Under the wraps are the same methods.
    """

    state_dict = unwrap(SGD.state_dict)
    load_state_dict = unwrap(SGD.load_state_dict)
    zero_grad = unwrap(SGD.zero_grad)
    add_param_group = unwrap(SGD.add_param_group)
    step = torch.no_grad()(unwrap(SGD.step))  # the wrap of this one was also what turned gradients off


def sgd(recipe: Recipe, trained: Iterable[nn.Parameter], device: torch.device) -> Optimizer:
    """SGD with the recipe's rate, momentum and weight decay, fused where torch can.

    A scalar is the logarithm of a cosine head's scale η. It does not decay, 0 being no value to draw it to, and has a
    rate of its own, with which η moves as it would if it were the parameter itself: d log η = dη / η, on both sides.
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
