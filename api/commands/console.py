"""What every command does: reach the service, print, and fail with one line."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from storage import safetext

if TYPE_CHECKING:
    from api.client import Client


@contextmanager
def service(url: str | None) -> "Iterator[Client]":
    """A client with the key of ACCRETE_API_KEY, whose errors become one line and exit code 1."""
    from api.client import Client
    from api.connection import DEFAULT_URL, ClientError

    try:
        with Client(url or DEFAULT_URL, key=os.environ.get("ACCRETE_API_KEY")) as client:
            yield client
    except ClientError as error:
        raise failure(str(error)) from error


def failure(message: str) -> typer.Exit:
    """Say what went wrong; the exception to raise."""
    typer.echo(f"error: {safetext.message(message)}", err=True)
    return typer.Exit(1)


def warn(messages: Iterable[str]) -> None:
    """Say what is probably a mistake, and go on."""
    for message in messages:
        typer.echo(f"warning: {safetext.message(message)}", err=True)


def emit(document: object | None, text: str) -> None:
    """Print the JSON document if there is one, else the text."""
    typer.echo(safetext.lines(text) if document is None else safetext.in_json(json.dumps(document, ensure_ascii=False)))
