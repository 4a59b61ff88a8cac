"""JSON that strangers send: bounded in its values before it is read, and read as one would expect."""

import json
from typing import Any

from storage.errors import Invalid, TooLarge

MAX_VALUES = 20_000  # of a request; the longest a person has is a list of a batch's classes


def check_values(body: bytes, *, most: int = MAX_VALUES) -> None:
    """Raise `TooLarge` for JSON of more values: each takes many times its length in memory, and time to look at."""
    if sum(body.count(sign) for sign in b",[{") > most:
        raise TooLarge(f"The JSON holds more than {most:,} values: send less at a time.", limit=most)


def loads(body: bytes) -> Any:
    """The document; raises `Invalid` for what JSON leaves open: names that come twice, numbers without end.

    What is no JSON is left to the caller, a `json.JSONDecodeError`.
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
