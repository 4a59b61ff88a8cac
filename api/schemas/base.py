"""What requests and answers share: how they are checked, made from records, listed and described."""

from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict

Item = TypeVar("Item")
Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(description="next_cursor of the page before.")]


class Answer(BaseModel):
    """Base of all answers: built from a record's attributes."""

    model_config = ConfigDict(from_attributes=True)


class Request(BaseModel):
    """Base of all JSON requests: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


def in_openapi(model: type[BaseModel]) -> dict[str, Any]:
    """Schema of a body that a route reads by itself.

    Definitions of its enumerations are left out: the components have them already, as types of parameters.
    """
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


class PageOut(BaseModel, Generic[Item]):
    """A slice of a list; ``next_cursor`` is null on the last one."""

    items: list[Item]
    next_cursor: str | None
