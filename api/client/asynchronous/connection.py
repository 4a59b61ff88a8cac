"""One HTTP connection to the service, for a program with an event loop: `api.client.connection`, to be awaited."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from api.client.asynchronous.sending import in_a_thread
from api.client.connection import (
    BROKE_OFF,
    CHUNK_BYTES,
    PASSING,
    Service,
    leave_out_nones,
    pause_after,
    raise_for_problem,
)


class AsyncConnection(Service):
    """Requests to one service; every answer but success raises a `ClientError`."""

    _http: httpx.AsyncClient

    def _open(self, **arguments: Any) -> None:
        self._http = httpx.AsyncClient(**arguments)

    async def close(self) -> None:
        """Close the sockets."""
        await self._http.aclose()

    async def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request and return its successful answer; parameters that are None are left out.

        A ``content`` that is an iterator is read in a thread, and closed however the request ends.
        """
        leave_out_nones(arguments)
        content = arguments.get("content")
        if isinstance(content, Iterator):
            content = arguments["content"] = in_a_thread(content)
        try:
            for pause in self.pauses(method, arguments):
                try:
                    return await self._answered(method, path, **arguments)
                except PASSING as error:
                    if pause is None:
                        raise
                    await asyncio.sleep(pause_after(error, least=pause))
        finally:
            if isinstance(content, AsyncGenerator):
                await content.aclose()
        raise AssertionError("the last pause is None")

    async def _answered(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request once, or a GET again on another connection where one breaks off."""
        with self.reached():
            try:
                response = await self._http.request(method, path, **arguments)
            except BROKE_OFF:
                if method != "GET":
                    raise
                response = await self._http.request(method, path, **arguments)
        raise_for_problem(response)
        return response

    async def json(self, method: str, path: str, **arguments: Any) -> Any:
        """Send a request and return the JSON document of the answer."""
        return self.document(await self.request(method, path, **arguments))

    async def pages(self, path: str, **params: Any) -> AsyncGenerator[Any, None]:
        """Every item of a list, page after page."""
        cursor: str | None = None
        while True:
            items, cursor = self.page(await self.json("GET", path, params={**params, "cursor": cursor}))
            for item in items:
                yield item
            if cursor is None:
                return

    @asynccontextmanager
    async def stream(self, method: str, path: str, **arguments: Any) -> AsyncIterator[httpx.Response]:
        """An answer whose body is read as it comes."""
        leave_out_nones(arguments)
        with self.reached():
            async with self._http.stream(method, path, **arguments) as response:
                if response.is_error:
                    await response.aread()
                raise_for_problem(response)
                yield response

    async def save(self, path: str, file: Path, **params: Any) -> None:
        """Write the body of an answer to a file, which appears once all of it has come."""
        unfinished = file.with_name(f"{file.name}.part")
        try:
            async with self.stream("GET", path, params=params) as response:
                target = await asyncio.to_thread(unfinished.open, "wb")
                try:
                    async for chunk in response.aiter_bytes(CHUNK_BYTES):
                        await asyncio.to_thread(target.write, chunk)
                finally:
                    target.close()
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
