"""Base64 as people and their tools write it."""

import binascii
from urllib.parse import unquote

_URL_SAFE = str.maketrans("-_", "+/")  # RFC 4648 §5


def decoded(text: str) -> bytes:
    """The bytes of a base64 text; raises ValueError, with the reason, if it is not base64.

    Accepts also the prefix of a data URI, white space between lines (RFC 2045), the URL-safe alphabet and missing
    padding: the meaning of such a text is unambiguous.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)  # the usual form; `base64` would copy a long text
    except ValueError:
        return binascii.a2b_base64(_plain(text), strict_mode=True)


def _plain(text: str) -> str:
    if text[:5].lower() == "data:":
        kind, comma, text = text.partition(",")
        if not comma or not kind.lower().endswith(";base64"):
            raise ValueError("a data URI begins with data:image/png;base64,")
        text = unquote(text)
    plain = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    return plain + "=" * (-len(plain) % 4)
