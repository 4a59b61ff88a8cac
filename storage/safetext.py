"""Makes untrusted text safe for logs, terminals and messages: escapes control characters and masks secrets."""

import re
from typing import Any

# Characters that move the cursor, clear the screen or change the direction of text (CVE-2021-42574): C0 and C1 control
# characters, direction marks, line and paragraph separators, invisible spaces and tags. Lone surrogates are here too,
# because they cannot be encoded for a terminal. The joiners of emoji and of Indic scripts are not: they stay.
_STEERING = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_IN_TEXT = re.compile(f"[{_STEERING}]")  # newlines and tabs are allowed
_IN_LINE = re.compile(f"[{_STEERING}\t\n]")

_SECRETS = tuple(
    (re.compile(pattern), shown)
    for pattern, shown in (
        (r"accrete_[A-Za-z0-9_-]{32,}", "accrete_***"),  # an API key of this service (`storage.requests.keys`)
        # A password may hold characters that should be escaped in a URL, so it is taken to reach to the last @.
        (r"""(?<=://)([^\s/:@'"]*):[^\s'"]*@""", r"\1:***@"),
        (r"""(?<=://)[^\s/:@'"]{20,}@""", "***@"),
        (r"""(?i)(?<=[?&])([\w-]*key)=[^\s&'"]+""", r"\1=***"),
        (r"""(?i)\b(bearer|basic)\s+[^\s'"`]{8,}""", r"\1 ***"),
        (r"""(?i)\b([\w-]*(?:password|passwd|secret|token|api_?key|access_?key)[\w-]*)=[^\s'"&,;]+""", r"\1=***"),
        (r"""(?i)(["'][\w-]*(?:password|secret|token|api_?key|access_?key)["']:\s*["'])[^'"]+""", r"\1***"),
    )
)


def line(text: str) -> str:
    r"""The text in one line, with ``\x1b`` for an escape character and so on."""
    return _IN_LINE.sub(_escaped, text)


def lines(text: str) -> str:
    """The text with control characters escaped, except newlines and tabs."""
    return _IN_TEXT.sub(_escaped, text)


def discreet(text: str) -> str:
    """The text with everything masked that looks like a key, a password or a token."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def message(text: str) -> str:
    """The text of an error, safe to show: it may quote names that others chose, or a URL with a password."""
    return lines(discreet(text))


def _escaped(found: "re.Match[str]") -> str:
    return found[0].encode("unicode_escape").decode()


def in_json(text: str) -> str:
    """A JSON document with the characters escaped that control terminals; existing escapes stay as they are."""
    return _IN_TEXT.sub(lambda found: _json_escaped(found[0]), text)


def _json_escaped(character: str) -> str:
    code = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{code[start : start + 4]}" for start in range(0, len(code), 4))


def deeply(value: Any) -> Any:
    """The value with `discreet` applied to every string in it, at any depth; for JSON logs."""
    match value:
        case str():
            return discreet(value)
        case dict():
            return {discreet(str(name)): deeply(one) for name, one in value.items()}
        case list() | tuple():
            return [deeply(one) for one in value]
    return value
