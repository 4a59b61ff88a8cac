"""Shared by all commands: reaching the service, printing, and failing with one line."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from storage import safetext

if TYPE_CHECKING:
    from api.client.client import Client


@contextmanager
def service(url: str | None) -> "Iterator[Client]":
    """A client with the key of ACCRETE_API_KEY, whose errors become one line and exit code 1."""
    from api.client.client import Client
    from api.client.connection import DEFAULT_URL, ClientError
    from api.commands.wording import as_commands

    try:
        with Client(url or DEFAULT_URL, key=os.environ.get("ACCRETE_API_KEY")) as client:
            yield client
    except ClientError as error:
        raise failure(as_commands(str(error))) from error


def failure(message: str) -> typer.Exit:
    """Print what went wrong on standard error; returns the exception to raise."""
    typer.echo(f"error: {safetext.message(message)}", err=True)
    return typer.Exit(1)


def warn(messages: Iterable[str]) -> None:
    """Print warnings about probable mistakes on standard error."""
    for message in messages:
        typer.echo(f"warning: {safetext.message(message)}", err=True)


def emit(document: object | None, text: str) -> None:
    """Print the JSON document if there is one, else the text."""
    is_plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    shown = safetext.lines(text) if document is None else safetext.in_json(json.dumps(document, ensure_ascii=is_plain))
    sys.stdout.write(shown + "\n")  # not typer's echo: it sends UTF-8 to an ASCII terminal, too
    sys.stdout.flush()
