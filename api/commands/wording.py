"""Translates the service's messages, which name routes and parameters, into commands and options."""

import re

_NAME = r"([^/\s?]+)"
_WORDS = [
    (re.compile(pattern), words)
    for pattern, words in (
        (r"\bknown_classes=(\w+)", r"--known-classes \1"),
        (r"\bpromote=(\w+)", r"--promote \1"),
        (r"\bstrategy=(\w+)", r"--strategy \1"),
        (rf"GET /v1/models/{_NAME}/versions(?![/\w])", r"accrete versions \1"),
        (rf"GET /v1/models/{_NAME}/increments(?![/\w])", r"accrete increments \1"),
        (rf"POST /v1/models/{_NAME}/increments", r"accrete push \1"),
        (rf"POST /v1/models/{_NAME}/batches", "accrete batches create MODEL"),
        (rf"PUT /v1/models/{_NAME}/current", r"accrete promote \1"),
        (r"POST /v1/models(?![/\w])", "accrete models create NAME"),
        (r"GET /v1/models(?![/\w])", "accrete models"),
        (r"GET /v1/strategies", "accrete strategies"),
        (rf"POST /v1/batches/{_NAME}/images(?:\?label=\S+)?", r"accrete images add \1 LABEL FILES"),
        (rf"GET /v1/batches/{_NAME}/rejects", r"accrete batches show \1 --all-rejects"),
        (rf"GET /v1/batches/{_NAME}", r"accrete batches show \1"),
        (rf"GET /v1/increments/{_NAME}(?:/events)?", r"accrete watch \1"),
        (rf"POST /v1/increments/{_NAME}/(cancel|retry)", r"accrete \2 \1"),
    )
]


def as_commands(text: str) -> str:
    """The text with options and commands instead of parameters and routes."""
    for pattern, words in _WORDS:
        text = pattern.sub(words, text)
    return text
