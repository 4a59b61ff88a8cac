"""Whether a strategy can work on a network at all."""

from losses.strategies import HeadKind
from storage.errors import RecipeInvalid, StrategyUnfit
from trainer.networks.limits import check as check_network
from trainer.recipes.recipe import Recipe
from trainer.recipes.resolution import known


def check_fit(
    strategy: str, recipe: Recipe, *, network: str, channels: int, image_size: int, head_kind: HeadKind | None
) -> None:
    """Raise `StrategyUnfit` or `RecipeInvalid` if the strategy or the recipe does not fit the network.

    ``head_kind`` is the kind of heads of the model's versions; None before the first version.
    """
    chosen = known(strategy)
    if chosen.head is not None and head_kind is not None and chosen.head != head_kind:
        raise StrategyUnfit(
            f"{strategy!r} needs a network with {chosen.head} heads, and the first version of this one fixed "
            f"{head_kind} heads: choose another strategy, or teach a new model with {strategy!r} from its first "
            "increment on."
        )
    head = chosen.head_beside(head_kind)
    if (reason := _obstacle(network, channels, image_size, head, chosen.asks_for("student_attention"))) is not None:
        raise StrategyUnfit(f"{strategy!r} cannot train this network: {reason}")
    if recipe.align_weights and head == "cosine":
        raise RecipeInvalid(
            "recipe: align_weights = True: permitted is false here, as the outputs of cosine heads do not depend on "
            "the norm of their rows",
            faults=[{"field": "align_weights", "value": "True", "permitted": "false with cosine heads"}],
        )


def _obstacle(network: str, channels: int, image_size: int, head: HeadKind, attention: bool) -> str | None:
    """Why a network cannot have such heads or attention maps; None if it can."""
    if head == "linear" and not attention:
        return None  # every network can
    try:
        check_network(network, channels=channels, image_size=image_size, head_kind=head, attention=attention)
    except ValueError as error:
        return str(error)
    return None
