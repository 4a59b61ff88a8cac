"""From the recipe fields of a model and an increment to a complete recipe, or to an error that names every fault."""

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from losses import strategies
from losses.hyperparameters import BOUNDS, HYPER_PARAMETERS, bounds_in_words
from storage.errors import RecipeInvalid, UnknownStrategy
from trainer.recipes import presets
from trainer.recipes.recipe import Recipe


def resolve(strategy: str, *layers: Mapping[str, Any]) -> Recipe:
    """The complete recipe: the values of each layer (model, then increment) override those of the layers before.

    The base is the recommended preset with the strategy's own defaults. A layer's ``preset`` sets that preset's values
    first, then the layer's own values apply. A layer with ``epochs`` sets ``least_steps`` to 0 unless it names both.
    Values that the strategy's objective does not use are checked and kept. Raises UnknownStrategy, and RecipeInvalid
    with the field, the value and the permitted values.
    """
    chosen = known(strategy)
    values: dict[str, Any] = presets.values("recommended", chosen)
    for layer in layers:
        if isinstance(preset := layer.get("preset"), str):  # anything else is named as invalid below
            values |= presets.values(preset, chosen)
        if "epochs" in layer:  # an explicit number of epochs is exact
            values["least_steps"] = 0
        values |= layer
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _invalid(error) from error


def schema(strategy: str) -> dict[str, Any]:
    """JSON schema of the recipe's fields that have an effect with the strategy, with the defaults they have there."""
    chosen = known(strategy)
    unused = set(HYPER_PARAMETERS).difference(chosen.hyper) | ({"align_weights"} if chosen.head == "cosine" else set())
    described = Recipe.model_json_schema()
    described["properties"] = {name: field for name, field in described["properties"].items() if name not in unused}
    for name, value in chosen.defaults.items():
        if name in described["properties"]:
            described["properties"][name]["default"] = value
    return described


def known(strategy: str) -> strategies.Strategy:
    """The strategy of that name; raises `UnknownStrategy` with the list of known ones."""
    if strategy not in strategies.names():
        listed = ", ".join(strategies.names())
        raise UnknownStrategy(f"no strategy {strategy!r}; known are {listed}", known=list(strategies.names()))
    return strategies.get(strategy)


def _invalid(error: ValidationError) -> RecipeInvalid:
    """Every fault with its field, the value received and the permitted values."""
    faults = [_fault(str((*fault["loc"], "recipe")[0]), fault["input"]) for fault in error.errors()]
    listed = "; ".join(f"{fault['field']} = {fault['value']}: permitted is {fault['permitted']}" for fault in faults)
    return RecipeInvalid(f"recipe: {listed}", faults=faults)


def _fault(name: str, value: Any) -> dict[str, str]:
    shown = repr(value)[:100]  # as text: not every value that was received can be sent back as JSON
    if (field := Recipe.model_fields.get(name)) is None:
        return {
            "field": name[:100],
            "value": shown,
            "permitted": f"no such field, only {', '.join(Recipe.model_fields)}",
        }
    return {"field": name, "value": shown, "permitted": permitted(field)}


def permitted(field: FieldInfo) -> str:
    """The values of a field in words, like ``a whole number at least 1 and at most 2,000``."""
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(get_args(field.annotation))
    if field.annotation == str | None:
        return "null or a plain file name ending in .safetensors, .pth or .pt"
    if field.annotation is bool:
        return "true or false"
    kind = "a whole number" if field.annotation is int else "a number"
    limits = {bound: getattr(found, bound) for found in field.metadata for bound in BOUNDS if hasattr(found, bound)}
    return f"{'null or ' if field.annotation == float | None else ''}{kind} {bounds_in_words(limits)}"
