"""Classification and distillation objectives: pure functions on logits.

torch is imported with the first name that needs it: `strategies`, `terms` and `hyperparameters` do not.
"""

from typing import TYPE_CHECKING, Any

from losses.strategies import names

if TYPE_CHECKING:
    from losses.objectives import Loss, Objective, objective

__all__ = ["Loss", "Objective", "names", "objective"]
_LATE = ("Loss", "Objective", "objective")


def __getattr__(name: str) -> Any:
    """Import a name of `losses.objectives` when it is asked for first (PEP 562)."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from losses import objectives

    return getattr(objectives, name)
