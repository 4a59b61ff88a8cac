"""Models: named classifiers and their defaults."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from api.admission.fitness import check_of_model, check_strategy
from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.http.root_path import located
from api.schemas.base import Cursor, Limit, PageOut
from api.schemas.models import ModelChange, ModelIn, ModelOut
from api.service import ServiceDep
from api.views import records
from storage.domain import Model, Scope
from storage.errors import (
    ModelBusy,
    ModelExists,
    ModelNotFound,
    RecipeInvalid,
    StrategyUnfit,
    UnknownNetwork,
    UnknownStrategy,
)
from storage.history import models, versions
from storage.requests import audit
from trainer.networks.limits import check as check_network

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=Guarded)


@router.post(
    "",
    dependencies=[needs(Scope.TRAIN)],
    status_code=201,
    responses=problems(ModelExists, UnknownStrategy, UnknownNetwork, RecipeInvalid, StrategyUnfit),
)
def create_model(body: ModelIn, request: Request, response: Response, service: ServiceDep) -> ModelOut:
    """Create a model; its first version comes with its first increment."""
    try:
        check_network(body.network, channels=body.channels, image_size=body.image_size)
    except ValueError as error:
        raise UnknownNetwork(str(error)) from error
    check_strategy(
        body.strategy,
        body.recipe,
        network=body.network,
        channels=body.channels,
        image_size=body.image_size,
        retention=body.retention,
        head_kind=None,
    )
    with service.database.write() as connection:
        created = models.create(
            connection,
            name=body.name,
            network=body.network,
            image_size=body.image_size,
            channels=body.channels,
            strategy=body.strategy,
            recipe=body.recipe,
            memory=body.memory.record() if body.memory is not None else None,
            retention=body.retention,
            keep_predictions=body.keep_predictions,
        )
        audit.record_change(connection, made={"model": created.name})
        response.headers["Location"] = located(request, f"/v1/models/{created.name}")
        return records.model(connection, created)


@router.get("", dependencies=[needs(Scope.PREDICT)])
def list_models(service: ServiceDep, limit: Limit = 100, cursor: Cursor = None) -> PageOut[ModelOut]:
    """List models by name."""
    with service.database.read() as connection:
        page = models.page(connection, limit=limit, cursor=cursor)
        return PageOut(items=records.model_list(connection, page.items), next_cursor=page.next_cursor)


@router.get("/{name}", dependencies=[needs(Scope.PREDICT)], responses=problems(ModelNotFound))
def get_model(name: str, service: ServiceDep) -> ModelOut:
    """Look at one model."""
    with service.database.read() as connection:
        return records.model(connection, models.get(connection, name))


@router.patch(
    "/{name}",
    dependencies=[needs(Scope.ADMIN)],
    responses=problems(ModelNotFound, UnknownStrategy, RecipeInvalid, StrategyUnfit),
)
def change_model(name: str, body: ModelChange, service: ServiceDep) -> ModelOut:
    """Set new defaults for coming increments, and what is kept of coming predictions."""
    values: dict[str, Any] = body.model_dump(exclude_unset=True)
    for required in ("strategy", "recipe", "retention", "keep_predictions"):
        if values.get(required, ...) is None:
            del values[required]
    if body.memory is not None:
        values["memory"] = body.memory.model_dump()
    with service.database.write() as connection:
        before = models.lock(connection, name)
        _check_change(connection, before, values)
        after = models.change(connection, name, values)
        if differences := _differences(before, after):
            audit.record_change(connection, changed=differences)
        changed = records.model(connection, after)
    if "keep_predictions" in differences:
        service.dispose()
    return changed


def _differences(before: Model, after: Model) -> dict[str, list[Any]]:
    """Defaults before and after, of those that are different."""
    defaults = [asdict(one) for one in (before, after)]
    names = ("strategy", "recipe", "memory", "retention", "keep_predictions")
    return {name: [one[name] for one in defaults] for name in names if defaults[0][name] != defaults[1][name]}


def _check_change(connection: Connection, model: Model, values: Mapping[str, Any]) -> None:
    """Check new defaults only: a model whose present ones no longer fit can still be changed, one default at a time.

    Raises `UnknownStrategy`, `RecipeInvalid` and `StrategyUnfit`.
    """
    if values.keys() & {"strategy", "recipe", "retention"}:
        strategy, recipe = values.get("strategy", model.strategy), values.get("recipe", model.recipe)
        check_of_model(connection, model, strategy, recipe, retention=values.get("retention"))


@router.delete(
    "/{name}", dependencies=[needs(Scope.ADMIN)], status_code=204, responses=problems(ModelNotFound, ModelBusy)
)
def delete_model(name: str, service: ServiceDep) -> None:
    """Delete a model with its versions, metrics and records; refused while an increment of it is not finished."""
    with service.database.write() as connection:
        model = models.get(connection, name)
        audit.record_change(connection, deleted={"model": name, "versions": versions.numbers(connection, model)})
        models.delete_model(connection, name)
    service.engine.registry.forget(model.id)
    service.dispose()
