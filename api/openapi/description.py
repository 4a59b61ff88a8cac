"""The meaning of a property or parameter, and values that examples share."""

from typing import Any, NamedTuple


class Description(NamedTuple):
    """The meaning of a name, and a value it may have."""

    text: str
    example: Any


ID = "0f8fad5bd9cb469fa16570867728950e"
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
TIME = "2026-11-28T09:30:00+00:00"
CURVES = {"average_accuracy": [0.98, 0.91], "forgetting": [None, 0.04]}
RANKED = [{"label": "rose", "probability": 0.93}, {"label": "tulip", "probability": 0.05}]
SHARE = {"hits": 412, "share": 0.824, "low": 0.788, "high": 0.856}
