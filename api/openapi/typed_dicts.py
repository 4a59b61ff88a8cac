"""The documents of the HTTP interface as typed dictionaries: the source of `api.client.documents`.

The client must not import the server's modules, so its types are generated from the OpenAPI document. `make types`
generates them. A test fails if the generated file and the document differ.
"""

from collections.abc import Iterator, Mapping
from textwrap import fill
from typing import Any

Schemas = Mapping[str, Mapping[str, Any]]

REQUESTS = {"MemoryIn"}  # request bodies that get a type as well
_PAGES = "PageOut_"
_WIDTH = 116  # of a line of a docstring
_PLAIN = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "object": "dict[str, Any]",
    "null": "None",
}
_HEADER = '''"""The service's JSON answers, as typed dictionaries: nothing the server adds is lost.

Written by `make types` from the OpenAPI document; change `api/schemas` instead.
"""

from typing import Any, Literal, TypedDict
'''


def source(schemas: Schemas, *, paths: Mapping[str, Any]) -> str:
    """Source of the module: a class for each object that a route of /v1 answers with, and for the objects in it."""
    wanted = sorted(_answers(paths) | REQUESTS)
    classes = [_class(name, schemas) for name in _in_order(wanted, schemas)]
    return "\n\n".join([_HEADER, *classes])


def _answers(paths: Mapping[str, Any]) -> set[str]:
    """Names of the schemas of successful answers."""
    found = set()
    for path, methods in paths.items():
        if path.startswith("/v1/"):
            for operation in methods.values():
                for status, answer in operation["responses"].items():
                    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
                    if status.startswith("2") and "$ref" in schema:
                        found.add(_referred(schema))
    return found


def _in_order(names: list[str], schemas: Schemas) -> list[str]:
    """Names in an order where each object comes after the objects in it; pages are left out, their items are not."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        if name in ordered or "enum" in schemas[name]:
            return
        for part in _references(schemas[name].get("properties", {})):
            visit(part)
        if not name.startswith(_PAGES):
            ordered.append(name)

    for name in names:
        visit(name)
    return ordered


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            yield _referred(schema)
        for part in schema.values():
            yield from _references(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _references(part)


def _class(name: str, schemas: Schemas) -> str:
    schema = schemas[name]
    required = set(schema.get("required", ()))
    head = f"class {_named(name)}(TypedDict{'' if required else ', total=False'}):"
    told = " ".join(str(schema.get("description", "")).split())
    lines = [head, *_docstring(told), ""]
    for field, kind in schema["properties"].items():
        lines.append(f"    {field}: {_type(kind, schemas)}")
    return "\n".join(lines) + "\n"


def _docstring(told: str) -> list[str]:
    text = f'"""{told}"""'
    if len(text) <= _WIDTH:
        return [f"    {text}"]
    first, _, rest = told.partition(". ")
    return [f'    """{first}.', "", *(f"    {line}" for line in fill(rest, _WIDTH).splitlines()), '    """']


def _type(schema: Mapping[str, Any], schemas: Schemas) -> str:
    if "$ref" in schema:
        name = _referred(schema)
        return _literal(schemas[name]["enum"]) if "enum" in schemas[name] else _named(name)
    if "anyOf" in schema:
        kinds = [_type(kind, schemas) for kind in schema["anyOf"]]
        return " | ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return _literal(schema["enum"])
    if "items" in schema:
        return f"list[{_type(schema['items'], schemas)}]"
    if isinstance(values := schema.get("additionalProperties"), Mapping):
        return f"dict[str, {_type(values, schemas)}]"
    return _PLAIN.get(schema.get("type", ""), "Any")


def _literal(values: list[Any]) -> str:
    return f"Literal[{', '.join(map(repr, values))}]".replace("'", '"')


def _referred(schema: Mapping[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _named(name: str) -> str:
    return name.removesuffix("Out").removesuffix("In")
