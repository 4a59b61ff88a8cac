"""How every process of the service logs: one line an entry, as text or as JSON, with the request it belongs to."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

from storage import safetext
from storage.settings import Settings

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)  # of the request that is being answered

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "request_id", "color_message"}


def configure(settings: Settings) -> None:
    """Make the root logger write to standard error alone, with level and format from the settings."""
    handler = logging.StreamHandler()
    handler.addFilter(_note_request)
    handler.setFormatter(JsonLines() if settings.log_format == "json" else TextLines())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)


class TextLines(logging.Formatter):
    """Time, level, logger, message, and in brackets the request."""

    def __init__(self) -> None:
        """Set the format."""
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s%(request)s")

    def format(self, record: logging.LogRecord) -> str:
        """One entry; no message can begin another entry or control a terminal."""
        found = getattr(record, "request_id", None)
        record.request = f" [{found}]" if found else ""
        return safetext.lines(safetext.discreet(super().format(record)))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The first line of an entry, with line breaks escaped."""
        record.message = safetext.line(record.message)
        return super().formatMessage(record)


class JsonLines(logging.Formatter):
    """A JSON object a line: time, level, logger, message, request_id, the fields of ``extra``, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One entry."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (found := getattr(record, "request_id", None)) is not None:
            entry["request_id"] = found
        entry |= {name: value for name, value in record.__dict__.items() if name not in _OWN}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return safetext.in_json(json.dumps(safetext.deeply(entry), default=lambda value: safetext.discreet(str(value))))


def _note_request(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True
