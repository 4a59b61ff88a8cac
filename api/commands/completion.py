"""What the shell offers when a person presses Tab; nothing where something fails."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from api.client.client import Client

SECONDS = 1.0  # to wait for the service
MOST = 500  # names to read of a list
_PLAIN = re.compile(r"[\w.,:@%+=/-]+")  # the shell evaluates what is offered: nothing that would have to be quoted


def words(*choices: str) -> Callable[[str], list[str]]:
    """Offer some words."""

    def offer(incomplete: str) -> list[str]:
        return _beginning(choices, incomplete)

    return offer


def strategies(incomplete: str) -> list[str]:
    """The names of the strategies."""
    from losses import names

    return _beginning(names(), incomplete)


def networks(incomplete: str) -> list[str]:
    """The names of the networks."""
    from trainer.networks.limits import names

    return _beginning(names(), incomplete)


def models(context: typer.Context, incomplete: str) -> list[str]:
    """The names of the service's models."""
    return _told(context, lambda client: (model["name"] for model in client.models()), incomplete)


def versions(context: typer.Context, incomplete: str) -> list[str]:
    """The numbers of the model's versions."""
    model = str(context.params.get("model"))
    return _told(context, lambda client: (str(one["version"]) for one in client.versions(model)), incomplete)


def classes(context: typer.Context, incomplete: str) -> list[str]:
    """The classes of the model."""
    model = str(context.params.get("model"))
    return _told(context, lambda client: client.model(model)["classes"], incomplete)


def increments(context: typer.Context, incomplete: str) -> list[str]:
    """The ids of each model's increments."""

    def of_all(client: "Client") -> Iterator[str]:
        for model in islice(client.models(), 20):
            yield from (increment["id"] for increment in islice(client.increments(model["name"]), 20))

    return _told(context, of_all, incomplete)


def _told(context: typer.Context, asked: "Callable[[Client], Iterable[str]]", incomplete: str) -> list[str]:
    """What a service that answers at once says; nothing if it does not."""
    found: list[str] = []
    with _silently():
        from api.client.client import Client
        from api.client.connection import DEFAULT_URL

        url = context.params.get("url") or os.environ.get("ACCRETE_URL") or DEFAULT_URL
        with Client(url, key=os.environ.get("ACCRETE_API_KEY"), timeout_seconds=SECONDS) as client:
            found = list(islice(asked(client), MOST))
    return _beginning(found, incomplete)


@contextmanager
def _silently() -> Iterator[None]:
    """Offer nothing where the service is away, refuses, or is none of ours."""
    from api.client.connection import ClientError

    try:
        yield
    except (ClientError, KeyError, TypeError):
        return


def _beginning(choices: Iterable[str], incomplete: str) -> list[str]:
    return [choice for choice in choices if choice.startswith(incomplete) and _PLAIN.fullmatch(choice)]
