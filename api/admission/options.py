"""The options of a request for an increment: everything in it but the images."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import ValidationError
from sqlalchemy import Connection

from api.admission.fitness import check_first, check_of_model, head_kind
from api.bodies import json_bodies
from api.schemas.increments import IncrementIn
from storage.domain import KnownClasses, Model, Promotion
from storage.errors import Invalid, RecipeInvalid, TooLarge
from storage.requests.idempotency import Asked

Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True)
class IncrementOptions:
    """The options of a request for an increment; None takes the model's default."""

    strategy: str | None = None
    recipe: Mapping[str, Any] | None = None
    promote: Promotion = Promotion.AUTO
    known_classes: KnownClasses = KnownClasses.REFUSE
    idempotency_key: str | None = None

    def of(self, *, archive: str | None = None, batch: str | None = None) -> Asked:
        """Everything in a request that decides its result, to recognise a repeated request.

        The options are as they were sent, without the model's defaults: these may change between two requests.
        """
        return {
            "route": "request increment",
            "archive": archive,
            "batch": batch,
            "strategy": self.strategy,
            "recipe": json.dumps(self.recipe or {}, sort_keys=True),
            "promote": self.promote,
            "known_classes": self.known_classes,
        }

    def recipe_for(self, connection: Connection, model: Model) -> tuple[str, dict[str, Any]]:
        """Strategy and complete recipe; raises `UnknownStrategy`, `RecipeInvalid` and `StrategyUnfit`."""
        strategy = self.strategy or model.strategy
        recipe = check_of_model(connection, model, strategy, model.recipe, self.recipe or {})
        if head_kind(connection, model) is None:
            check_first(strategy, default=model.strategy)
        return strategy, recipe.model_dump(mode="json")


def parse_json(body: bytes) -> IncrementIn:
    """The JSON form of a request for an increment; raises `TooLarge`, and `Invalid`, which names the field."""
    try:
        asked = IncrementIn.model_validate_json(body)
        json_bodies.loads(body)  # raises `Invalid` for a name that comes twice
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise Invalid(f"The JSON body is not as it should be: {faults}") from error
    return asked


def read(body: Mapping[str, Any], query: Mapping[str, Any], *, idempotency_key: str | None) -> IncrementOptions:
    """The options of a form or JSON body and of the query, which takes precedence.

    Raises `Invalid`, which names the field, and its subclass `RecipeInvalid`.
    """
    fields = {**body, **{name: value for name, value in query.items() if value is not None}}
    unknown = sorted(set(fields) - {"strategy", "recipe", "promote", "known_classes"})
    if unknown:
        raise Invalid(f"Unknown field {', '.join(unknown)}: known are strategy, recipe, promote and known_classes.")
    if empty := [name for name, value in fields.items() if value == "" and name != "recipe"]:
        raise Invalid(f"{', '.join(empty)} is empty: leave it out for the default.")
    recipe = fields.get("recipe")
    if isinstance(recipe, str):
        try:
            recipe = json_bodies.loads(recipe.encode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError, Invalid, TooLarge) as error:
            raise RecipeInvalid(f"recipe is no JSON: {error}") from error
    if recipe is not None and not isinstance(recipe, dict):
        raise RecipeInvalid(f'recipe is a JSON object such as {{"epochs": 10}}, got {recipe!r}')
    return IncrementOptions(
        strategy=fields.get("strategy"),
        recipe=recipe,
        promote=_one_of(Promotion, "promote", fields.get("promote") or Promotion.AUTO),
        known_classes=_one_of(KnownClasses, "known_classes", fields.get("known_classes") or KnownClasses.REFUSE),
        idempotency_key=idempotency_key,
    )


def _one_of(kind: type[Choice], name: str, value: str) -> Choice:
    try:
        return kind(value)
    except ValueError as error:
        raise Invalid(f"{name} is one of {', '.join(map(str, kind))}, got {value!r}") from error
