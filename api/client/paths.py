"""Addresses, headers and media types of the client's requests."""

import mimetypes
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, urlsplit


def keyed(idempotency_key: str | None) -> dict[str, str]:
    """The header Idempotency-Key, with which a request may be sent again; {} without a key."""
    return {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}


def address(*parts: str | int) -> str:
    """A path below /v1 with every part quoted."""
    return "/".join(["/v1", *(quote(str(part), safe="") for part in parts)])


def media_type(file: Path) -> str:
    """The media type of a file, guessed from its name."""
    return mimetypes.guess_type(file.name)[0] or "application/octet-stream"


def host_of(url: str) -> str:
    """The host of a service's address; raises ValueError if it is not a plain http or https address."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("no http or https, or more than an address")
    return parts.hostname


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"
