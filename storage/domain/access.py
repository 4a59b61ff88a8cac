"""Who may do what, and what was done: keys of the API, their scopes, and the entries of the audit log."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from storage.domain.values import Json


class Scope(StrEnum):
    """What a key may do: predict and read; train too; or everything."""

    PREDICT = "predict"
    TRAIN = "train"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as it is stored: never the key itself."""

    id: str
    name: str
    digest: str  # SHA-256 of the key
    scopes: frozenset[Scope]
    model_id: str | None  # the only model that it is valid for; None: all models
    rate: float | None  # requests a second; None: no limit
    created_at: datetime
    revoked_at: datetime | None = None

    def allows(self, scope: Scope) -> bool:
        """Whether the key's scopes include this one: train includes predict, and admin includes both."""
        order = list(Scope)
        return any(order.index(held) >= order.index(scope) for held in self.scopes)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the audit log: a requested change, by whom, and its result."""

    number: int
    created_at: datetime
    key_id: str | None  # None: no key was needed
    key_name: str
    client: str  # the client's address
    action: str  # method and route, such as "DELETE /v1/images/{image_id}"
    path: str  # as requested
    status: int | None  # HTTP status of the answer; None: not answered, or not yet
    change: Json | None = None  # what was changed; None: nothing, or it is not on record
