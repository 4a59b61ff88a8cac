"""Recipes to start from: each decides every field but the seed and the files."""

from typing import Any

from losses import strategies
from trainer.recipes.recipe import Recipe

RECOMMENDED: dict[str, Any] = {
    name: field.default
    for name, field in Recipe.model_fields.items()
    if name not in {"preset", "seed", "initial_weights"}
}
PRESETS: dict[str, dict[str, Any]] = {
    "recommended": RECOMMENDED,
    "quick": RECOMMENDED | {"epochs": 8, "minibatch": 32},  # more steps out of few images and little time
    # LOSSES, The published schedule. What it does not mention is off, but for the crops and flips that are usual with
    # such images (own choice).
    "paper": RECOMMENDED
    | {
        "epochs": 200,
        "minibatch": 64,
        "learning_rate": 0.1,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "plateau",
        "warmup_epochs": 0.0,
        "gradient_clip": None,
        "least_steps": 0,
        "sampling": "uniform",
    },
}


def values(preset: str, strategy: strategies.Strategy) -> dict[str, Any]:
    """A preset's values with a strategy's own for its hyper-parameters; none for an unknown preset.

    All of them are given, so that a later layer's preset takes back an earlier one's.
    """
    return PRESETS[preset] | dict(strategy.defaults) if preset in PRESETS else {}
