"""Answers to requests with an Idempotency-Key, stored in the transaction that makes the requested change."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select

from storage.database.tables import answers, increments
from storage.domain import Model, now
from storage.errors import IdempotencyMismatch

Asked = Mapping[str, str | int | list[str] | None]  # everything in a request that its answer depends on


def recall(connection: Connection, model: Model, *, key: str, asked: Asked) -> dict[str, Any] | None:
    """The stored answer to this request; None for a new key.

    Raises `IdempotencyMismatch` if a different request used the key. The caller holds the model's lock, so that of two
    equal requests at once the second finds the answer to the first.
    """
    query = select(answers).where(answers.c.model_id == model.id, answers.c.key == key)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        _refuse_that_of_an_increment(connection, model, key)
        return None
    if row["fingerprint"] != fingerprint(asked):
        raise mismatch(key)
    document: dict[str, Any] = row["document"]
    return document


def remember(connection: Connection, model: Model, *, key: str, asked: Asked, document: Mapping[str, Any]) -> None:
    """Store the answer that is about to be sent."""
    values = {"fingerprint": fingerprint(asked), "document": dict(document), "created_at": now()}
    connection.execute(insert(answers).values(model_id=model.id, key=key, **values))


def fingerprint(asked: Asked) -> str:
    """SHA-256 of a request, in hexadecimal digits; the same for equal requests."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def mismatch(key: str, *, increment: str | None = None) -> IdempotencyMismatch:
    """The error for a key that a different request used; ``increment`` is the id of the increment that it made."""
    return IdempotencyMismatch(
        f"Idempotency-Key {key!r} was used with another request: use a fresh key for a new request.",
        increment=increment,
    )


def _refuse_that_of_an_increment(connection: Connection, model: Model, key: str) -> None:
    """Raise `IdempotencyMismatch` if a request for an increment used the key, which is then in the increment's row."""
    query = select(increments.c.id).where(increments.c.model_id == model.id, increments.c.idempotency_key == key)
    if (made := connection.scalar(query)) is not None:
        raise mismatch(key, increment=str(made))
