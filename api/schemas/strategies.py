"""Strategies: what an increment can optimise."""

from typing import Any, Literal

from pydantic import Field

from api.schemas.base import Answer


class StrategyOut(Answer):
    """A way to learn new classes without losing the old ones."""

    name: str
    title: str
    explanation: str
    source: str
    formula: str = Field(description="What is minimised from the second increment on, as docs/strategies.md writes it.")
    head: Literal["linear", "cosine"] | None = Field(description="Kind of heads it needs; null: either.")
    needs_exemplars: bool = Field(
        description="Whether it is made for rehearsal: without images of the old classes, from a model's memory or "
        "sent with known_classes=rehearse, part of it has nothing to act on, and they are forgotten."
    )
    recipe_schema: dict[str, Any]
