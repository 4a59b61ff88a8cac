"""Recipes to start from: each sets every field except the preset, the seed and the initial weights."""

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
    # LOSSES, The published schedule. Everything that it does not mention is off, except crops and flips, which are
    # usual for such images (own choice).
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
    """A preset's values, with the strategy's own defaults for its hyper-parameters; empty for an unknown preset.

    The dictionary has every field of a preset, so that the preset of a later layer replaces that of an earlier one.
    """
    return PRESETS[preset] | dict(strategy.defaults) if preset in PRESETS else {}
