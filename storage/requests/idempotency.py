"""Answers that were given under an Idempotency-Key, written in the transaction of what they tell."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select

from storage.database.tables import answers, increments
from storage.domain import Model, now
from storage.errors import IdempotencyMismatch

Asked = Mapping[str, str | int | list[str] | None]  # all of a request that decides its answer


def recall(connection: Connection, model: Model, *, key: str, asked: Asked) -> dict[str, Any] | None:
    """What was answered to this request before; None for a new key.

    Raises `IdempotencyMismatch` if another request had the key. The caller holds the model's lock, so that of two
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
    """Write down what is about to be answered."""
    values = {"fingerprint": fingerprint(asked), "document": dict(document), "created_at": now()}
    connection.execute(insert(answers).values(model_id=model.id, key=key, **values))


def fingerprint(asked: Asked) -> str:
    """What tells a request from others."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def mismatch(key: str, *, increment: str | None = None) -> IdempotencyMismatch:
    """The error of a key that came with another request; ``increment`` is what that one made."""
    return IdempotencyMismatch(
        f"Idempotency-Key {key!r} was used with another request: use a fresh key for a new request.",
        increment=increment,
    )


def _refuse_that_of_an_increment(connection: Connection, model: Model, key: str) -> None:
    """An increment keeps its key in its own row: its answer is the increment as it is now."""
    query = select(increments.c.id).where(increments.c.model_id == model.id, increments.c.idempotency_key == key)
    if (made := connection.scalar(query)) is not None:
        raise mismatch(key, increment=str(made))
