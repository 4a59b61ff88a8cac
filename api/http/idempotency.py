"""The header `Idempotency-Key`: a request that is sent again gets the first answer, and changes nothing again."""

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
    """The answer stored under this key; or a new one of ``give``, stored in this transaction.

    The caller holds the model's lock. Raises `IdempotencyMismatch` if the key came with another request before.
    """
    if (before := answered(connection, model, key, asked=asked, kind=kind)) is not None:
        return before
    given = give()
    if key is not None:
        idempotency.remember(connection, model, key=key, asked=asked, document=given.model_dump(mode="json"))
    return given


def answered(connection: Connection, model: Model, key: str | None, *, asked: Asked, kind: type[Given]) -> Given | None:
    """The answer stored under this key, None if there is none; routes also call it before they store a body.

    Raises `IdempotencyMismatch` if the key came with another request before.
    """
    document = idempotency.recall(connection, model, key=key, asked=asked) if key is not None else None
    return kind.model_validate(document) if document is not None else None
