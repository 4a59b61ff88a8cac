"""One answer to one request, however often it is sent: `Idempotency-Key` on what changes something."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Header
from pydantic import BaseModel
from sqlalchemy import Connection

from storage.domain import Model
from storage.requests import idempotency
from storage.requests.idempotency import Asked

Given = TypeVar("Given", bound=BaseModel)
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=200, description="The same key and request get the same answer, done once."),
]


def once(
    connection: Connection, model: Model, key: str | None, *, asked: Asked, kind: type[Given], give: Callable[[], Given]
) -> Given:
    """The answer that was given under this key, or a new one, written down in this transaction.

    The caller holds the model's lock. Raises `IdempotencyMismatch` where the key came with another request.
    """
    if (before := answered(connection, model, key, asked=asked, kind=kind)) is not None:
        return before
    given = give()
    if key is not None:
        idempotency.remember(connection, model, key=key, asked=asked, document=given.model_dump(mode="json"))
    return given


def answered(connection: Connection, model: Model, key: str | None, *, asked: Asked, kind: type[Given]) -> Given | None:
    """The answer that was given under this key: to be looked for before anything is stored, too.

    Raises `IdempotencyMismatch` where the key came with another request.
    """
    document = idempotency.recall(connection, model, key=key, asked=asked) if key is not None else None
    return kind.model_validate(document) if document is not None else None
