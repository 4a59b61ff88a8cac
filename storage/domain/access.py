"""Who may do what, and what was done: keys of the API, their scopes, and the entries of the audit log."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Scope(StrEnum):
    """What a key may do: ask for predictions and look; teach too; or everything."""

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
    model_id: str | None  # the one model it is good for; None: for all
    rate: float | None  # requests a second; None: as many as it likes
    created_at: datetime
    revoked_at: datetime | None = None

    def allows(self, scope: Scope) -> bool:
        """Whether it may do what needs that scope: train includes predict, and admin both."""
        order = list(Scope)
        return any(order.index(held) >= order.index(scope) for held in self.scopes)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who asked for what change, and how that ended."""

    number: int
    created_at: datetime
    key_id: str | None  # None: nobody needed a key
    key_name: str
    client: str  # address of the other end
    action: str  # method and route, such as "DELETE /v1/images/{image_id}"
    path: str  # as it was asked for
    status: int | None  # of the answer; None: it was never given, or not yet
