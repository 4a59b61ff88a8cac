"""Edits: classes are dropped or merged, which makes a version in seconds and without training."""

from collections.abc import Sequence

from fastapi import APIRouter, Response
from starlette.requests import Request

from api.http.guarded_route import Guarded
from api.http.idempotency import IdempotencyKey
from api.http.problems import problems
from api.http.rights import needs
from api.http.root_path import located
from api.schemas.edits import EditIn, MergeIn
from api.schemas.increments import IncrementOut
from api.service import Service, ServiceDep
from api.views import records
from storage.domain import Edit, Increment, Merge, Model, Scope
from storage.errors import (
    ClassNameTaken,
    EditInvalid,
    IdempotencyMismatch,
    Invalid,
    ModelNotFound,
    NoVersionYet,
)
from storage.history import classes, models
from storage.labels import folded, label_fault
from storage.requests import audit
from storage.work import editing, increments, reports

router = APIRouter(prefix="/v1/models/{name}", tags=["increments"], route_class=Guarded)


@router.post(
    "/edits",
    dependencies=[needs(Scope.TRAIN)],
    status_code=202,
    responses=problems(ModelNotFound, NoVersionYet, EditInvalid, ClassNameTaken, IdempotencyMismatch),
)
def request_edit(
    name: str,
    body: EditIn,
    request: Request,
    response: Response,
    service: ServiceDep,
    idempotency_key: IdempotencyKey = None,
) -> IncrementOut:
    """Drop classes of the head, or merge several into one: queued and published like an increment, without training."""
    increment, is_new = _queued(service, name, body, idempotency_key)
    if is_new:
        service.wake_worker(increment.id)
    response.headers["Location"] = located(request, f"/v1/increments/{increment.id}")
    with service.database.read() as connection:
        return records.increment(reports.get(connection, increment.id))


def _queued(service: Service, name: str, body: EditIn, key: str | None) -> tuple[Increment, bool]:
    """The queued edit, and whether it is new: not a repeated request."""
    asked = {"route": "request edit", "archive": None, "batch": None, "edit": body.model_dump_json()}
    with service.database.write() as connection:
        model = models.lock(connection, name)
        earlier = increments.answered_before(connection, model=model, idempotency_key=key, asked=asked)
        if earlier is not None:
            return earlier, False
        edit = Edit(_labels(model, body.drop), tuple(_merge(model, one) for one in body.merge))
        made = editing.request(connection, model, edit, promote=body.promote, idempotency_key=key, asked=asked)
        audit.record_change(connection, made={"increment": made.id, "edit": body.model_dump(exclude={"promote"})})
        return made, True


def _merge(model: Model, asked: MergeIn) -> Merge:
    """A merge by labels; raises `Invalid` for a text that is no class name, and `ClassNameTaken` for a former one."""
    into = folded(asked.into)
    if (fault := label_fault(into)) is not None:
        raise Invalid(f"label {into!r} {fault}")
    return Merge(_labels(model, asked.labels), classes.label_of(model, into))


def _labels(model: Model, names: Sequence[str]) -> tuple[str, ...]:
    """Labels of classes; raises `EditInvalid` for the former name of one."""
    found = {name: model.names.label(folded(name)) for name in names}
    for name, label in found.items():
        if label is None:
            raise EditInvalid(
                f"There is no class {name!r} any more: it was renamed {model.names.name(folded(name))!r}."
            )
    return tuple(label for name in names if (label := found[name]) is not None)
