"""Paths, headers and media types of the client's requests."""

import mimetypes
from pathlib import Path
from urllib.parse import quote


def keyed(idempotency_key: str | None) -> dict[str, str]:
    """The header Idempotency-Key, with which a request may be sent again; {} without a key."""
    return {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}


def address(*parts: str | int) -> str:
    """A path below /v1 with every part quoted."""
    return "/".join(["/v1", *(quote(str(part), safe="") for part in parts)])


def media_type(file: Path) -> str:
    """The media type of a file, guessed from its name."""
    return mimetypes.guess_type(file.name)[0] or "application/octet-stream"
