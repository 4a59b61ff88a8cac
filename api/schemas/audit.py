"""The audit log."""

from datetime import datetime
from typing import Any

from api.schemas.base import Answer


class AuditEntryOut(Answer):
    """A change that somebody asked for; ``status`` is that of the answer, null where it was not noted.

    ``change`` says what was changed, null where nothing was or it is not on record: ``changed`` holds values before and
    after by field, ``made`` and ``deleted`` say what.
    """

    number: int
    created_at: datetime
    key_id: str | None
    key_name: str
    client: str
    action: str
    path: str
    status: int | None
    change: dict[str, Any] | None
