"""What to know of an increment, or of a model's defaults, that is allowed and yet seldom what somebody wants."""

from collections.abc import Sequence

from sqlalchemy import Connection

from losses.strategies import Strategy
from storage.domain import Increment, Model
from storage.history import models
from storage.material import batches
from storage.work import increments
from trainer import recipes

_SHOWN = 5  # names in a sentence
_MEMORY = '{"memory": {"per_class": 20}}'  # of as many exemplars as a model has by default


def of_increment(connection: Connection, increment: Increment) -> list[str]:
    """A sentence if its strategy is made for rehearsal and sees nothing of an old class; none once it has ended.

    With the memory that the model has now: it counts when the increment begins.
    """
    strategy = recipes.known(increment.strategy)
    if not strategy.without_exemplars or increment.status.is_final:
        return []
    model = models.by_id(connection, increment.model_id)
    batch = batches.get(connection, increment.batch_id)
    known = increments.classes_before(connection, model, increment)
    has_memory = bool(known) and model.memory is not None and model.memory.share(len(known)) > 0
    stored = increments.stored_classes(connection, model) if has_memory else frozenset()
    missing = sorted(known - stored - {count.label for count in batch.classes})
    if not missing:
        return []
    sending = "send images of them with known_classes=rehearse"
    memory = f"give the model a memory (PATCH /v1/models/{model.name} with {_MEMORY}) before it begins"
    way_out = sending if has_memory else f"{memory}, or {sending}"
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
