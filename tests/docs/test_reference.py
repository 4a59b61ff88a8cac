"""The reference pages name everything that there is."""

import inspect

import pytest
from typer.main import get_command

import accrete
from api.commands.commandline import app
from docs.building import http, programs
from docs.building.hooks import reference


@pytest.fixture(scope="module")
def document():
    return http.openapi()


def commands_of(command, name):
    yield name
    for part, below in getattr(command, "commands", {}).items():
        yield from commands_of(below, f"{name} {part}")


def test_the_page_about_http_names_every_route_with_its_parameters(document):
    sections = reference()[http.ROUTES].split("\n### ")[1:]
    by_title = {section.partition("\n")[0].strip("`"): section for section in sections}
    described = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert by_title.keys() == described.keys()
    for title, operation in described.items():
        section = by_title[title]
        names = [one["name"] for one in operation.get("parameters", ())]
        assert [name for name in names if f"| `{name}` |" not in section] == [], title
        assert ("Needs a key of scope" in section) == ("security" in operation), title


def test_the_page_of_documents_names_every_field(document):
    sections = dict(part.split("\n", 1) for part in reference()[http.DOCUMENTS].split("\n## ")[1:])
    schemas = document["components"]["schemas"]
    assert sections.keys() == schemas.keys()
    for name, schema in schemas.items():
        assert [field for field in schema.get("properties", ()) if f"| `{field}` |" not in sections[name]] == []


def test_the_page_of_the_client_names_every_method_and_every_name_of_the_package():
    page = reference()[programs.CLIENT]
    methods = [name for name, _ in inspect.getmembers(accrete.Client, inspect.isfunction) if not name.startswith("_")]
    assert len(methods) > 30
    assert [name for name in methods if f"\nclient.{name}(" not in page] == []
    assert [name for name in accrete.__all__ if name not in page] == []
    assert "client.change_model(name: str, **changes: Any) -> Model\n" in page
    assert "client.delete_model(name: str)\n" in page


def test_the_page_of_the_command_line_names_every_command():
    page = reference()[programs.COMMANDS]
    names = list(commands_of(get_command(app), "accrete"))
    assert "accrete keys create" in names
    assert [name for name in names[1:] if f"# `{name}`\n" not in page] == []
