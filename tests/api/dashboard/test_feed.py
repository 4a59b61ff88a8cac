"""Increments that several pages follow: asked for once a second, however many look."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from api.client.asynchronous.client import AsyncClient
from api.client.connection import NotFound
from api.dashboard import feed
from api.dashboard.feed import Feed


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LOOK_SECONDS", 0.05)


def page() -> Any:
    """A page in a browser, as far as the feed looks at it."""
    return SimpleNamespace(is_deleted=False)


async def until(holds: Any) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)


def test_pages_share_one_look_and_see_every_state_to_the_end(world):
    asked = world.increment(world.model(), "cat", "dog")["id"]
    seen: list[list[str]] = [[], []]

    async def follow(feed: Feed, client: AsyncClient, place: int) -> None:
        async for increment in feed.follow(client, asked, page()):
            if seen[place][-1:] != [increment["status"]]:
                seen[place].append(increment["status"])

    async def story() -> None:
        followed = Feed()
        async with AsyncClient(str(world.http.base_url)) as client:
            both = asyncio.gather(follow(followed, client, 0), follow(followed, client, 1))
            await until(lambda: seen == [["queued"], ["queued"]])
            assert followed.watched == 1
            await client.cancel(asked)
            await both
            assert followed.watched == 0

    asyncio.run(story())
    assert seen == [["queued", "cancelled"]] * 2


def test_with_the_last_page_the_increment_is_forgotten(world):
    asked = world.increment(world.model(), "cat", "dog")["id"]

    async def story() -> None:
        followed, shown = Feed(), page()
        async with AsyncClient(str(world.http.base_url)) as client:

            async def follow() -> None:
                async for _ in followed.follow(client, asked, shown):
                    pass

            following = asyncio.create_task(follow())
            await until(lambda: followed.watched == 1)
            shown.is_deleted = True
            await following
            assert followed.watched == 0

    asyncio.run(story())


def test_an_increment_that_is_not_there_is_said(world):
    async def story() -> None:
        async with AsyncClient(str(world.http.base_url)) as client:
            async for _ in Feed().follow(client, "0" * 32, page()):
                pass

    with pytest.raises(NotFound):
        asyncio.run(story())
