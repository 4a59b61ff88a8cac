"""Recipes: every hyper-parameter of an increment, with its range, its default and where that comes from."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from losses import strategies
from losses.distillation import TaskReduction
from storage.errors import RecipeInvalid, UnknownStrategy

Preset = Literal["recommended", "quick"]
Schedule = Literal["constant", "cosine", "one-cycle"]
AugmentationKind = Literal["auto", "none", "crop", "crop-flip"]

WEIGHT_FILE = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.(safetensors|pth|pt)$"
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}  # pydantic's names in words


class Recipe(BaseModel):
    """All hyper-parameters of one increment; the defaults are the preset ``recommended``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    preset: Annotated[Preset, Field(description="Values to start from: recommended, or quick for demonstrations.")] = (
        "recommended"
    )
    epochs: Annotated[
        int,
        Field(ge=1, le=2000, description="Passes over the training images. 30: own choice, for an answer in minutes."),
    ] = 30
    minibatch: Annotated[
        int,
        Field(ge=2, le=4096, description="Images of one optimiser step. 64: the published schedule's (LOSSES)."),
    ] = 64
    learning_rate: Annotated[
        float, Field(gt=0, le=10, description="Highest learning rate of SGD. 0.1: He et al. 2016 §4.2.")
    ] = 0.1
    momentum: Annotated[
        float, Field(ge=0, lt=1, description="Momentum of SGD, 0 for none. 0.9: He et al. 2016 §4.2.")
    ] = 0.9
    weight_decay: Annotated[
        float, Field(ge=0, le=1, description="L2 penalty. 5e-4: Zagoruyko and Komodakis, arXiv:1605.07146 §3.")
    ] = 5e-4
    schedule: Annotated[
        Schedule,
        Field(
            description="After the warm-up the learning rate stays (constant) or falls to 0 along half a cosine "
            "(cosine: Loshchilov and Hutter, arXiv:1608.03983, without restarts); one-cycle brings its own "
            "warm-up and moves momentum against the rate (Smith and Topin, arXiv:1708.07120)."
        ),
    ] = "cosine"
    warmup_epochs: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="Epochs in which the learning rate rises linearly from 0, at most half of all. "
            "1: own choice, after Goyal et al., arXiv:1706.02677 §2.2.",
        ),
    ] = 1.0
    label_smoothing: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Share of a label spread over all classes. 0: as published; 0.1 is usual elsewhere "
            "(Szegedy et al., arXiv:1512.00567 §7).",
        ),
    ] = 0.0
    gradient_clip: Annotated[
        float | None,
        Field(gt=0, description="Largest norm of the gradient, null for none. 5: own choice, against the first steps."),
    ] = 5.0
    augmentation: Annotated[
        AugmentationKind,
        Field(
            description="Training images shifted (crop) and mirrored (flip), as He et al. 2016 §4.2; "
            "auto does not mirror grey images, which are often digits or documents."
        ),
    ] = "auto"
    seed: Annotated[
        int, Field(ge=0, lt=2**32, description="Of initial weights, order and augmentation. 0: any will do.")
    ] = 0
    initial_weights: Annotated[
        str | None,
        Field(
            pattern=WEIGHT_FILE,
            description="File in the server's weights folder to start the first increment's backbone from, "
            ".safetensors or .pth; null: from chance.",
        ),
    ] = None
    distillation_weight: Annotated[
        float, Field(ge=0, le=1000, description="λ, of all distillation terms. 1: as published (LwF §3).")
    ] = 1.0
    temperature: Annotated[float, Field(gt=0, le=100, description="T, softens what is distilled. 2: LwF §4.")] = 2.0
    task_reduction: Annotated[
        TaskReduction,
        Field(description="Per-task distillation terms added up over the old tasks (as published), or averaged."),
    ] = "sum"

    def objective(self, strategy: str) -> dict[str, Any]:
        """Keywords for ``losses.objective(strategy, …)``."""
        return {name: getattr(self, name) for name in strategies.get(strategy).hyper}


# Which fields a preset decides: all but the seed, the files and the preset itself. Each preset has all of them, so
# that a later layer's preset takes back an earlier one's.
_RECOMMENDED: dict[str, Any] = {
    name: field.default
    for name, field in Recipe.model_fields.items()
    if name not in {"preset", "seed", "initial_weights"}
}
PRESETS: dict[str, dict[str, Any]] = {
    "recommended": _RECOMMENDED,
    "quick": _RECOMMENDED | {"epochs": 8, "minibatch": 32},  # more steps out of few images and little time
}
OBJECTIVE_FIELDS = frozenset(name for strategy in strategies.STRATEGIES for name in strategy.hyper)


def resolve(strategy: str, *layers: Mapping[str, Any]) -> Recipe:
    """The complete recipe: each layer (model, then increment) goes on top of those before it.

    A layer's ``preset`` fills in that preset's values before the layer's own. Raises UnknownStrategy, and RecipeInvalid
    with field, value and what is permitted. Values that the strategy's objective has no use for are checked and kept.
    """
    _known(strategy)
    values: dict[str, Any] = {}
    for layer in layers:
        if isinstance(preset := layer.get("preset"), str):  # anything else is named as invalid below
            values |= PRESETS.get(preset, {})
        values |= layer
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _invalid(error) from error


def schema(strategy: str) -> dict[str, Any]:
    """JSON schema of the recipe's fields that have an effect with the strategy."""
    unused = OBJECTIVE_FIELDS.difference(_known(strategy).hyper)
    described = Recipe.model_json_schema()
    described["properties"] = {name: field for name, field in described["properties"].items() if name not in unused}
    return described


def _known(strategy: str) -> strategies.Strategy:
    if strategy not in strategies.names():
        known = ", ".join(strategies.names())
        raise UnknownStrategy(f"no strategy {strategy!r}; known are {known}", known=list(strategies.names()))
    return strategies.get(strategy)


def _invalid(error: ValidationError) -> RecipeInvalid:
    """Every fault with its field, the value that came and what is permitted."""
    faults = [_fault(str((*fault["loc"], "recipe")[0]), fault["input"]) for fault in error.errors()]
    listed = "; ".join(f"{fault['field']} = {fault['value']}: permitted is {fault['permitted']}" for fault in faults)
    return RecipeInvalid(f"recipe: {listed}", faults=faults)


def _fault(name: str, value: Any) -> dict[str, str]:
    shown = repr(value)[:100]  # as text: not everything that can come in can go out again as JSON
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
    kind = "a whole number" if field.annotation is int else "a number"
    limits = " and ".join(
        f"{words} {getattr(constraint, bound):,}"
        for bound, words in BOUNDS.items()
        for constraint in field.metadata
        if hasattr(constraint, bound)
    )
    return f"{'null or ' if field.annotation == float | None else ''}{kind} {limits}"
