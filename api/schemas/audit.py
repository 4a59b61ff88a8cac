"""The audit log."""

from datetime import datetime

from api.schemas.base import Answer


class AuditEntryOut(Answer):
    """A change that somebody asked for; ``status`` is that of the answer, null where it was not noted."""

    number: int
    created_at: datetime
    key_id: str | None
    key_name: str
    client: str
    action: str
    path: str
    status: int | None
