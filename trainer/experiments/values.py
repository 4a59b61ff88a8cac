"""Readers of values on the command line; a reader's docstring is the error message for a value that it cannot read."""

import argparse
import json
from collections.abc import Callable
from typing import Any, TypeVar

import losses
from storage.domain import Memory

Value = TypeVar("Value")


def _described(read: Callable[[str], Value]) -> Callable[[str], Value]:
    def checked(text: str) -> Value:
        try:
            return read(text)
        except ValueError as error:
            expected = str(read.__doc__)
            raise argparse.ArgumentTypeError(f"{text!r}: expected {expected[0].lower()}{expected[1:-1]}") from error

    return checked


@_described
def count(text: str) -> int:
    """A whole number from 1 on."""
    return _at_least(1, text)


@_described
def order(text: str) -> int | None:
    """'given' or the seed of a shuffle, a whole number from 0 on."""
    return None if text == "given" else _at_least(0, text)


@_described
def strategies(text: str) -> tuple[str, ...]:
    """'all' or names with commas between them, each once."""
    return losses.names() if text == "all" else _distinct(text)


@_described
def seeds(text: str) -> tuple[int, ...]:
    """One or more whole numbers from 0 on with commas between them, each once."""
    return tuple(_at_least(0, seed) for seed in _distinct(text))


@_described
def recipe(text: str) -> dict[str, Any]:
    """The name of a preset or a JSON object."""
    return dict(json.loads(text)) if text.startswith("{") else {"preset": text}


@_described
def memory(text: str) -> Memory:
    """A number of exemplars of each class, or total:N, from 1 on."""
    kind, colon, number = text.rpartition(":")
    if colon and kind != "total":
        raise ValueError(text)
    return Memory(total=_at_least(1, number)) if colon else Memory(per_class=_at_least(1, number))


@_described
def devices(text: str) -> tuple[str, ...]:
    """Auto, cpu, cuda or cuda:N with commas between them, each once."""
    return _distinct(text)


def _distinct(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    if "" in parts or len(set(parts)) < len(parts):
        raise ValueError(text)
    return parts


def _at_least(lowest: int, text: str) -> int:
    if (number := int(text)) < lowest:
        raise ValueError(text)
    return number
