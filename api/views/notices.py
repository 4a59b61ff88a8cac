"""What to know of an increment, or of a model's defaults, that is allowed and yet seldom what somebody wants."""

from collections.abc import Sequence

from losses.strategies import Strategy
from storage.domain import IncrementReport, Model
from trainer import recipes

_SHOWN = 5  # names in a sentence
_MEMORY = '{"memory": {"per_class": 20}}'  # of as many exemplars as a model has by default


def of_increment(report: IncrementReport) -> list[str]:
    """A sentence if its strategy is made for rehearsal and sees nothing of an old class; none once it has ended.

    Of the classes as they were when it was queued, with the memory that the model has now: it counts when the
    increment begins.
    """
    increment, unshown, memory = report.increment, report.increment.unshown, report.memory
    strategy = recipes.known(increment.strategy)
    if not strategy.without_exemplars or increment.status.is_final or unshown is None or not unshown.known:
        return []
    has_memory = memory is not None and memory.share(unshown.known) > 0
    missing = unshown.unstored if has_memory else unshown.unsent
    if not missing:
        return []
    sending = "send images of them with known_classes=rehearse"
    giving = f"give the model a memory (PATCH /v1/models/{report.model} with {_MEMORY}) before it begins"
    way_out = sending if has_memory else f"{giving}, or {sending}"
    return [
        f"{strategy.name!r} is made for rehearsal, and this increment shows no image of {_names(missing)}: "
        f"{_expectation(strategy)}; {way_out}."
    ]


def of_model(model: Model) -> list[str]:
    """A sentence if the default strategy is made for rehearsal and the model keeps nothing for it."""
    strategy = recipes.known(model.strategy)
    if not strategy.without_exemplars or model.memory is not None:
        return []
    others = "" if model.head is not None else ", or choose a strategy that does without, such as 'lwf-bsr'"
    return [
        f"{strategy.name!r} is made for rehearsal, and the model keeps no images for it: {_expectation(strategy)}; "
        f"give the model a memory (PATCH /v1/models/{model.name} with {_MEMORY}){others}."
    ]


def _expectation(strategy: Strategy) -> str:
    return f"{strategy.without_exemplars}, so expect old classes to be forgotten"


def _names(labels: Sequence[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:_SHOWN])
    return shown if len(labels) <= _SHOWN else f"{shown} and {len(labels) - _SHOWN} more"
