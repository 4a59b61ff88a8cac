"""The audit log."""

from datetime import datetime

from api.schemas.base import Answer


class AuditEntryOut(Answer):
    """A change that somebody asked for; ``status`` is null if the service ended before it had answered."""

    number: int
    created_at: datetime
    key_id: str | None
    key_name: str
    client: str
    action: str
    path: str
    status: int | None
