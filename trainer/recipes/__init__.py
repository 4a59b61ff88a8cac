"""Recipes: a strategy's hyper-parameters and everything else that decides how an increment is trained."""

from trainer.recipes.fit import check_fit
from trainer.recipes.presets import PRESETS
from trainer.recipes.recipe import AugmentationKind, Precision, Recipe, Sampling, Selection
from trainer.recipes.resolution import known, resolve, schema

__all__ = [
    "PRESETS",
    "AugmentationKind",
    "Precision",
    "Recipe",
    "Sampling",
    "Selection",
    "check_fit",
    "known",
    "resolve",
    "schema",
]
