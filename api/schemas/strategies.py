"""Strategies: what an increment can optimise."""

from typing import Any

from api.schemas.base import Answer


class StrategyOut(Answer):
    """A way to learn new classes without losing the old ones."""

    name: str
    title: str
    explanation: str
    source: str
    recipe_schema: dict[str, Any]
