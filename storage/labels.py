"""Class names: one spelling for each, and which texts are allowed."""

import re
import unicodedata

MAX_LABEL = 200  # characters
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")  # control, line, direction
_BLANKS = (
    " \t\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u202f\u205f\u3000\ufeff"
)


def folded(label: str) -> str:
    """The stored spelling of a class name: Unicode form NFC, without blanks at its ends; case stays.

    macOS writes accents as separate characters and other systems do not, but both look the same.
    """
    return unicodedata.normalize("NFC", label).strip(_BLANKS)


def label_fault(label: str) -> str | None:
    """Why a text cannot be a class name, or None if it can."""
    if not label or label in {".", ".."} or "/" in label or "\\" in label:
        return "is no class name: it must be a single folder's name"
    if len(label) > MAX_LABEL:
        return f"has a class name of {len(label)} characters, {MAX_LABEL} at most are allowed"
    if FORBIDDEN.search(label):
        return "holds control characters"
    return None
