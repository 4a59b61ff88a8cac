"""Images that are moved to another class, and what versions had learned from them."""

from fastapi import APIRouter, Request

from api.http.guarded_route import Guarded
from api.http.problems import problems
from api.http.rights import needs
from api.schemas.base import Cursor, Limit, PageOut
from api.schemas.batches import ImageChange, RelabelledOut, RelabelOut
from api.service import ServiceDep
from api.views import records
from storage.domain import Model, Scope, Split
from storage.errors import BatchInUse, ClassNameTaken, ClassNotFound, ImageNotFound, Invalid, ModelNotFound
from storage.history import classes, models
from storage.labels import folded, label_fault
from storage.material import images
from storage.requests import audit
from storage.work import relabelling
from storage.work.relabelling import Relabelled

router = APIRouter(prefix="/v1", tags=["images"], route_class=Guarded)


@router.patch(
    "/images/{image_id}",
    dependencies=[needs(Scope.TRAIN)],
    responses=problems(ImageNotFound, ClassNotFound, ClassNameTaken, BatchInUse),
)
def relabel_image(image_id: str, body: ImageChange, request: Request, service: ServiceDep) -> RelabelledOut:
    """Move a stored image to another class: versions stay as they are, and the next increment sees it so."""
    name = folded(body.label)
    if (fault := label_fault(name)) is not None:
        raise Invalid(f"label {name!r} {fault}")
    key_name = request.state.key.name if request.state.key is not None else audit.NOBODY
    with service.database.write() as connection:
        of_image = models.by_id(connection, images.model_of(connection, image_id))
        model = models.lock(connection, of_image.name)
        moved = relabelling.relabel(connection, model, image_id, classes.label_of(model, name), key_name=key_name)
        if moved.before != moved.image.label:
            audit.record_change(connection, changed={"label": [model.names.name(moved.before), name]})
    return _shown(model, moved)


@router.get("/models/{name}/relabels", dependencies=[needs(Scope.TRAIN)], responses=problems(ModelNotFound))
def list_relabels(name: str, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None) -> PageOut[RelabelOut]:
    """List which images were moved to another class after versions had learned from them, latest first."""
    with service.database.read() as connection:
        model = models.get(connection, name)
        page = relabelling.page(connection, model, limit=limit, cursor=cursor)
    items = [
        RelabelOut(
            image_id=one.image_id,
            before=model.names.name(one.before),
            after=model.names.name(one.after),
            split=one.split,
            versions=list(one.versions),
            key=one.key_name,
            created_at=one.created_at,
        )
        for one in page.items
    ]
    return PageOut(items=items, next_cursor=page.next_cursor)


def _shown(model: Model, moved: Relabelled) -> RelabelledOut:
    former = model.names.name(moved.before)
    return RelabelledOut(
        **records.stored_image(model, moved.image).model_dump(),
        former_label=former,
        versions=list(moved.record.versions) if moved.record is not None else [],
        note=_note(moved, former),
    )


def _note(moved: Relabelled, former: str) -> str:
    """What the move means for versions, in a sentence."""
    if moved.record is None or not moved.record.versions:
        return "No version has learned from this image."
    use = "were measured on" if moved.image.split is Split.TEST else "learned from"
    numbers = ", ".join(map(str, moved.record.versions))
    return (
        f"Versions {numbers} {use} this image as {former!r} and stay as they are; their metrics do too. "
        "The next increment sees it under its new class."
    )
