"""The types of the client are those of the OpenAPI document."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from api.openapi.typed_dicts import source

ROOT = Path(__file__).parents[3]
SCHEMAS: dict[str, dict[str, Any]] = {
    "Kind": {"enum": ["a", "b"]},
    "PartOut": {"properties": {"size": {"type": "integer"}}, "required": ["size"], "description": "A part."},
    "WholeOut": {
        "properties": {
            "kind": {"$ref": "#/components/schemas/Kind"},
            "parts": {"type": "array", "items": {"$ref": "#/components/schemas/PartOut"}},
            "named": {"type": "object", "additionalProperties": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
            "free": {"type": "object", "additionalProperties": True},
        },
        "required": ["kind"],
        "description": "A whole.",
    },
    "PageOut_WholeOut_": {"properties": {"items": {"items": {"$ref": "#/components/schemas/WholeOut"}}}},
    "ErrorOut": {"properties": {}},
    "MemoryIn": {"properties": {"total": {"type": "integer"}}, "description": "A choice."},
}


def answering(schema: str, status: str = "200") -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"get": {"responses": {status: {"content": content}}}}


def test_the_types_are_those_of_the_document() -> None:
    command = [sys.executable, str(ROOT / ".ci" / "client_types.py")]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (ROOT / "api" / "client" / "documents.py").read_text() == written, "run `make types`"


def test_each_kind_of_schema_has_its_type() -> None:
    paths = {
        "/v1/wholes": answering("PageOut_WholeOut_"),
        "/v1/odd": answering("ErrorOut", "404"),
        "/v2": answering("ErrorOut"),
    }
    text = source(SCHEMAS, paths=paths)
    assert text.index("class Part(TypedDict):") < text.index("class Whole(TypedDict):")
    assert 'kind: Literal["a", "b"]' in text
    assert "parts: list[Part]" in text
    assert "named: dict[str, float | None]" in text
    assert "free: dict[str, Any]" in text
    assert "class Memory(TypedDict, total=False):" in text
    assert "Error" not in text
    assert "Page" not in text
