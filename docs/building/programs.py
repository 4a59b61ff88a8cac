"""The pages about the package `accrete` and about the command line, from their signatures, docstrings and options."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

import accrete
from api.client.client import Client
from api.commands.commandline import app

CLIENT, COMMANDS = "reference/client.md", "reference/commands.md"
FIRST = ("Client", "AsyncClient")
MODULES = re.compile(r"\b(?:\w+\.)+(?=[A-Z])")
SUBJECT = re.compile(r"Client methods (?:for|to) |\.$")


def client() -> str:
    """The page of the package: the client's methods by subject, then everything else that the package exports."""
    lines = [
        "# Python",
        "",
        "What `import accrete` gives. `accrete.Client` has a method for each request. `accrete.AsyncClient` has the",
        "same methods, which are awaited; lists and events are read with `async for`.",
        "",
        "## Client",
        "",
        *_function("accrete.Client", Client, Client.__init__),
    ]
    for subject in Client.__mro__[1:-1]:
        lines += [f"### {SUBJECT.sub('', inspect.getdoc(subject) or '').capitalize()}", ""]
        for name, method in vars(subject).items():
            if not name.startswith("_") and callable(method):
                lines += _function(f"client.{name}", method, method)
    for name in (name for name in accrete.__all__ if name not in FIRST):
        thing = getattr(accrete, name)
        lines += [f"## {name}", ""]
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            lines += _class(name, thing)
        elif inspect.isclass(thing):
            lines += [_prose(thing), ""]
        else:
            lines += _function(f"accrete.{name}", thing, thing)
    return "\n".join(lines)


def commands() -> str:
    """The page of the command line."""
    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="accrete"), name="accrete")
    return text.replace("# `accrete`\n", "# Command line\n", 1)


def _class(name: str, thing: type[Any]) -> Iterator[str]:
    yield from _function(f"accrete.{name}", thing, thing)
    for member, value in vars(thing).items():
        if not member.startswith("_") and inspect.isfunction(value):
            yield from _function(f"{name}.{member}", value, value)


def _function(called: str, described: Callable[..., Any], signed: Callable[..., Any]) -> Iterator[str]:
    yield from ("```python", f"{called}{_signature(inspect.signature(signed))}", "```", "", _prose(described))
    if described is not signed:
        yield from ("", _prose(signed))
    yield ""


def _signature(signature: inspect.Signature) -> str:
    """The parameters without ``self``, each on a line of its own where they are long, and what is returned."""
    words: list[str] = []
    for one in signature.parameters.values():
        if one.kind is one.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        if one.name != "self":
            default = "" if one.default is one.empty else f" = {one.default!r}"
            stars = "**" if one.kind is one.VAR_KEYWORD else ""
            words.append(f"{stars}{one.name}: {_type(one.annotation)}{default}")
    line = ", ".join(words)
    inner = line if len(line) < 60 else "\n    " + ",\n    ".join(words) + ",\n"
    returned = "" if signature.return_annotation in {None, signature.empty} else _type(signature.return_annotation)
    return f"({inner}) -> {returned}" if returned else f"({inner})"


def _type(annotation: Any) -> str:
    """An annotation as it is written, without the modules of its names."""
    written = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return MODULES.sub("", written)


def _prose(described: Callable[..., Any]) -> str:
    return (inspect.getdoc(described) or "").replace("``", "`")
