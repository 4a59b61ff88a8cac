"""Base64 as people and their tools write it."""

import base64
from urllib.parse import unquote

_URL_SAFE = str.maketrans("-_", "+/")  # RFC 4648 §5


def decoded(text: str) -> bytes:
    """The bytes of a base64 text; raises ValueError, with the reason, if it is not base64.

    Accepts also the prefix of a data URI, white space between lines (RFC 2045), the URL-safe alphabet and missing
    padding: the meaning of such a text is unambiguous.
    """
    try:
        return base64.b64decode(text, validate=True)  # the usual form, which needs no copy of a long text
    except ValueError:
        return base64.b64decode(_plain(text), validate=True)


def _plain(text: str) -> str:
    if text[:5].lower() == "data:":
        kind, comma, text = text.partition(",")
        if not comma or not kind.lower().endswith(";base64"):
            raise ValueError("a data URI begins with data:image/png;base64,")
        text = unquote(text)
    plain = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    return plain + "=" * (-len(plain) % 4)
