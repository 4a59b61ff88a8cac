"""What increments are doing, for every page that looks: one question a second for each, however many look."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from nicegui import Client

from api.client.asynchronous.client import AsyncClient
from api.client.connection import ClientError, Unreachable
from api.client.documents import Increment

LOOK_SECONDS = 1.0
ENDED = {"succeeded", "failed", "cancelled"}


@dataclass
class _Watch:
    """One increment that is looked at, for the pages that show it."""

    pages: int = 0
    latest: Increment | None = None
    error: ClientError | None = None
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None


class Feed:
    """Follows increments; a page that goes away is forgotten, and with the last one so is the increment."""

    def __init__(self) -> None:
        """Follow nothing yet."""
        self._watches: dict[tuple[int, str], _Watch] = {}

    @property
    def watched(self) -> int:
        """How many increments are looked at."""
        return len(self._watches)

    async def follow(self, client: AsyncClient, increment_id: str, page: Client) -> AsyncIterator[Increment]:
        """The states of an increment until it has ended or the page has gone; raises `ClientError`."""
        key = (id(client), increment_id)  # what one key may see, another one may not
        watch = self._watches.setdefault(key, _Watch())
        watch.pages += 1
        if watch.task is None:
            watch.task = asyncio.create_task(self._look(client, increment_id, watch))
        try:
            shown: Increment | None = None
            while not page.is_deleted:
                if watch.error is not None:
                    raise watch.error
                if watch.latest is not None and watch.latest is not shown:
                    shown = watch.latest
                    yield shown
                    if shown["status"] in ENDED:
                        return
                async with watch.news:
                    try:
                        await asyncio.wait_for(watch.news.wait(), 2 * LOOK_SECONDS)
                    except TimeoutError:
                        continue
        finally:
            watch.pages -= 1
            if not watch.pages:
                self._watches.pop(key, None)
                watch.task.cancel()

    async def _look(self, client: AsyncClient, increment_id: str, watch: _Watch) -> None:
        while True:
            try:
                watch.latest = await client.increment(increment_id)
            except Unreachable:
                pass  # the API is away for a while
            except ClientError as error:
                watch.error = error
            async with watch.news:
                watch.news.notify_all()
            if watch.error is not None or (watch.latest is not None and watch.latest["status"] in ENDED):
                return
            await asyncio.sleep(LOOK_SECONDS)
