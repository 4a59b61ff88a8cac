"""Classification and distillation objectives: pure functions on logits."""

from losses.objectives import Loss, Objective, objective
from losses.strategies import names

__all__ = ["Loss", "Objective", "names", "objective"]
