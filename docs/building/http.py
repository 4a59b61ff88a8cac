"""The pages about HTTP, from the OpenAPI document: one of the routes, one of the documents that they take and give."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from api.app import create_app
from storage.settings import Settings

ROUTES, DOCUMENTS = "reference/http.md", "reference/documents.md"
Document = dict[str, Any]


def openapi() -> Document:
    """The OpenAPI document of a service that asks for keys."""
    with TemporaryDirectory() as home:
        return create_app(Settings(home=Path(home), keys="required")).openapi()


def routes(document: Document) -> str:
    """The page of the routes, by tag in the order of the document."""
    lines = [
        "# HTTP",
        "",
        "Every route of the service, from its OpenAPI document. A running service has the document at `/openapi.json`,",
        "and a page to try the routes at `/docs`. [Documents](documents.md) has what is sent and",
        "answered, [problems](../problems.md) has the errors.",
        "",
    ]
    for tag in document["tags"]:
        lines += [f"## {tag['name'].capitalize()}", "", tag["description"], ""]
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    lines += _operation(f"{method.upper()} {path}", operation)
    return "\n".join(lines)


def documents(document: Document) -> str:
    """The page of the documents, by name."""
    lines = ["# Documents", "", "What the [routes](http.md) take and give, by the names of the OpenAPI document.", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += [f"## {name}", "", *([_line(schema["description"], ""), ""] if "description" in schema else [])]
        if properties := schema.get("properties"):
            required = schema.get("required", ())
            lines += ["| field | type | |", "|---|---|---|"]
            for field, described in properties.items():
                said = "" if field in required else _default(described)
                lines.append(
                    f"| `{field}` | {type_of(described, DOCUMENTS)} | {_line(described.get('description', ''), said)} |"
                )
        else:
            lines.append(type_of(schema, DOCUMENTS))
        lines.append("")
    return "\n".join(lines)


def type_of(schema: Document, page: str) -> str:
    """A schema in a few words for a table, with links to the documents from ``page``."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}]({'' if page == DOCUMENTS else 'documents.md'}#{name.lower()})"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(type_of(one, page) for one in schema[key]))
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{value}`" for value in values)
    return _plain_type(schema, page)


def _plain_type(schema: Document, page: str) -> str:
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}), page)}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {type_of(schema['additionalProperties'], page)}"
    return "bytes" if schema.get("format") == "binary" else str(kind)


def _operation(title: str, operation: Document) -> Iterator[str]:
    yield from (f"### `{title}`", "", operation.get("description", ""), "")
    if parameters := operation.get("parameters"):
        yield from ("| parameter | in | type | |", "|---|---|---|---|")
        for one in parameters:
            said = "required" if one.get("required") and one["in"] != "path" else _default(one["schema"])
            name, kind = one["name"], type_of(one["schema"], ROUTES)
            yield f"| `{name}` | {one['in']} | {kind} | {_line(one.get('description', ''), said)} |"
        yield ""
    if content := operation.get("requestBody", {}).get("content"):
        yield from ("| body | |", "|---|---|", *(_body(kind, media) for kind, media in content.items()), "")
    yield from ("| status | answer |", "|---|---|")
    for status, response in operation["responses"].items():
        given = ", ".join(
            f"`{kind}`: {type_of(media.get('schema', {}), ROUTES)}"
            for kind, media in response.get("content", {}).items()
            if kind != "application/problem+json"
        )
        yield f"| {status} | {given or _line(response['description'], '')} |"
    yield ""


def _body(kind: str, media: Document) -> str:
    schema = media.get("schema", {})
    fields = ", ".join(f"`{name}`" for name in schema.get("properties", ()))
    return f"| `{kind}` | {'fields ' + fields if fields else type_of(schema, ROUTES)} |"


def _default(schema: Document) -> str:
    if (default := schema.get("default")) is None:
        return ""
    return f"default `{str(default).lower() if isinstance(default, bool) else default}`"


def _line(text: str, remark: str) -> str:
    """Text for a cell of a table."""
    cell = " ".join(text.replace("``", "`").replace("|", "\\|").split())
    return " ".join(filter(None, [cell, f"({remark})" if remark else ""]))
