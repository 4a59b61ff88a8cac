"""Whether a model can be trained as a request asks."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection

from losses.strategies import HeadKind
from storage.domain import Model, Retention
from storage.errors import StrategyUnfit
from storage.history import versions
from trainer import recipes
from trainer.recipes import Recipe


def check_strategy(
    strategy: str,
    *layers: Mapping[str, Any],
    network: str,
    channels: int,
    image_size: int,
    retention: Retention,
    head_kind: HeadKind | None,
) -> Recipe:
    """The complete recipe of a strategy that fits the model.

    ``head_kind`` is the kind of heads of the model's versions; None before the first version.
    Raises `UnknownStrategy`, `RecipeInvalid` and `StrategyUnfit`.
    """
    recipe = recipes.resolve(strategy, *layers)
    recipes.check_fit(strategy, recipe, network=network, channels=channels, image_size=image_size, head_kind=head_kind)
    if recipes.known(strategy).every_image and retention is not Retention.ALL:
        raise StrategyUnfit(
            f"{strategy!r} learns from every image the model was ever taught, and retention {str(retention)!r} does "
            "not keep them: choose another strategy, or retention 'all' from the first increment on."
        )
    return recipe


def check_of_model(
    connection: Connection, model: Model, strategy: str, *layers: Mapping[str, Any], retention: Retention | None = None
) -> Recipe:
    """`check_strategy` for an existing model; ``retention`` is the one it is about to get, None: its present one."""
    return check_strategy(
        strategy,
        *layers,
        network=model.network,
        channels=model.channels,
        image_size=model.image_size,
        retention=retention or model.retention,
        head_kind=head_kind(connection, model),
    )


def head_kind(connection: Connection, model: Model) -> HeadKind | None:
    """The kind of heads of a model's versions, fixed by the first version's strategy; None before that version."""
    strategy = versions.first_strategy(connection, model)
    return recipes.known(strategy).head_beside(None) if strategy is not None else None


def check_first(strategy: str, *, default: str) -> None:
    """Raise `StrategyUnfit` if a model's first increment would fix heads that its default strategy cannot use."""
    fixed, needed = recipes.known(strategy).head_beside(None), recipes.known(default).head
    if needed is not None and needed != fixed:
        raise StrategyUnfit(
            f"A first increment with {strategy!r} would give the model {fixed} heads for good, and its default "
            f"strategy {default!r} needs {needed} ones: begin with a strategy that fits, or change the default "
            "(PATCH the model) first."
        )


def rehearses(model: Model, strategy: str, *, known: Collection[str]) -> bool:
    """Whether an increment trains on old images as well as on the new ones.

    ``known`` are the classes that the model will know when the increment starts. A memory whose total is smaller than
    the number of classes keeps no exemplars.
    """
    if not known:
        return False
    places = model.memory.share(len(known)) if model.memory is not None else 0
    return places > 0 or recipes.known(strategy).every_image
