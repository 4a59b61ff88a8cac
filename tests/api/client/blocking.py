"""The asynchronous client for tests of the other one: an event loop that runs for one call at a time."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from api.client.asynchronous.client import AsyncClient


class Blocking:
    """An `AsyncClient` whose calls are awaited here."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._client = AsyncClient(*arguments, **named)
        self._runner = asyncio.Runner()

    def __enter__(self) -> "Blocking":
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._runner.run(self._client.__aexit__(*error))
        self._runner.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            answer = getattr(self._client, name)(*arguments, **named)
            return self._items(answer) if isinstance(answer, AsyncGenerator) else self._runner.run(answer)

        return call

    def _items(self, generator: AsyncGenerator[Any, None]) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._runner.run(anext(generator))
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(generator.aclose())
