"""JSON from clients: the number of its values is limited before it is parsed, and ambiguous JSON is refused."""

import json
from typing import Any

from storage.errors import Invalid, TooLarge

MAX_VALUES = 20_000  # in a request; the longest one that makes sense lists a batch's classes


def check_values(body: bytes, *, most: int = MAX_VALUES) -> None:
    """Raise `TooLarge` for JSON of more than ``most`` values: a parsed value takes many times its length in memory.

    The number is estimated from the signs between values, without parsing.
    """
    if sum(body.count(sign) for sign in b",[{") > most:
        raise TooLarge(f"The JSON holds more than {most:,} values: send less at a time.", limit=most)


def loads(body: bytes) -> Any:
    """Parse a document. Raises `TooLarge` for too many values, and `Invalid` for a name that comes twice in an object.

    Also raises `Invalid` for a number of some thousand digits. For text that is not JSON, the errors of `json.loads` go
    to the caller: `json.JSONDecodeError`, UnicodeError and RecursionError.
    """
    check_values(body)
    try:
        return json.loads(body, object_pairs_hook=_unique)
    except (json.JSONDecodeError, UnicodeError, RecursionError):
        raise
    except ValueError as error:  # int() takes no more than some thousand digits
        raise Invalid(f"The JSON holds a number that is too long: {error}.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Invalid(f"The JSON names {twice[:100]!r} twice in one object: say which one is meant.")
    return found
