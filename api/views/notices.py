"""Notices on settings of an increment, or defaults of a model, that are allowed but seldom wanted."""

from collections.abc import Sequence

from losses.strategies import Strategy
from storage.domain import IncrementReport, Model
from trainer import recipes

_SHOWN = 5  # names in a sentence
_MEMORY = '{"memory": {"per_class": 20}}'  # the memory that a model has by default


def of_increment(report: IncrementReport) -> list[str]:
    """A notice if the strategy is made for rehearsal and no image of an old class is shown; none after the end.

    The old classes are those at the time of queueing. The memory is the model's present one, since the increment uses
    the one that the model has when it begins.
    """
    increment, unshown, memory = report.increment, report.increment.unshown, report.memory
    strategy = recipes.known(increment.strategy)
    if not strategy.without_exemplars or increment.status.is_final or unshown is None or not unshown.known:
        return []
    has_memory = memory is not None and memory.share(unshown.known) > 0
    missing = report.names.all(unshown.unstored if has_memory else unshown.unsent)
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
    """A notice if the default strategy is made for rehearsal and the model keeps no exemplars."""
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
