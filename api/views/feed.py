"""News of the increments that clients follow: one poll of the database serves all streams of a process."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError

from api.views import records
from storage.database.engine import Database
from storage.domain import Event, Increment
from storage.work import events, increments, reports

POLL_SECONDS = 0.25  # how soon a stream sees what the worker wrote

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class News:
    """An increment as it is now, and its events since the last poll."""

    increment: Increment
    steps: tuple[Event, ...]
    shown: Mapping[str, Any] | None  # the whole increment as the API answers it, where a step changes its status


@dataclass(eq=False)
class _Reader:
    """One stream, and the news that it has not taken yet; for a slow client they add up."""

    increment_id: str
    seen: int  # number of the last event that was found for it
    news: News | None = None
    is_over: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self) -> News | None:
        """Take the news out; None if there are none."""
        self.changed.clear()
        news, self.news = self.news, None
        return news

    def tell(self, found: News | None) -> None:
        """Add the news that a poll has found; None means that the increment was deleted."""
        if found is None:
            self.end()
            return
        steps = tuple(step for step in found.steps if step.sequence > self.seen)
        self.seen = max([self.seen, *(step.sequence for step in steps)])
        before = self.news
        if before is not None:
            steps = before.steps + steps
        self.news = News(found.increment, steps, found.shown or (before.shown if before is not None else None))
        self.is_over = found.increment.status.is_final
        self.changed.set()

    def end(self) -> None:
        """End the stream once its news are taken."""
        self.is_over = True
        self.changed.set()


class Feed:
    """Polls the database while there are streams; they stay open while the database is unreachable."""

    def __init__(self, database: Database, *, ending: asyncio.Event) -> None:
        """Poll ``database`` until ``ending`` is set."""
        self._database, self._ending = database, ending
        self._readers: set[_Reader] = set()
        self._joined = asyncio.Event()  # by a new stream: poll at once
        self._looking: asyncio.Task[None] | None = None

    async def follow(self, increment_id: str, *, after: int) -> AsyncIterator[News]:
        """Yield an increment's news after event number ``after``, until it ends or is deleted or the process ends."""
        reader = _Reader(increment_id, after)
        self._readers.add(reader)
        self._joined.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_again_and_again(), context=Context())
        try:
            while not (reader.is_over and reader.news is None):
                await reader.changed.wait()
                if (news := reader.take()) is not None:
                    yield news
        finally:
            self._readers.discard(reader)

    async def _look_again_and_again(self) -> None:
        while self._readers and not self._ending.is_set():
            self._joined.clear()
            readers = list(self._readers)
            try:
                found = await to_thread.run_sync(self._look, _wanted(readers))
            except SQLAlchemyError as error:
                log.warning("events cannot be looked for: %s", error)
            else:
                for reader in readers:
                    reader.tell(found.get(reader.increment_id))
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._joined.wait()
            except TimeoutError:
                continue
        for reader in self._readers:
            reader.end()

    def _look(self, wanted: Mapping[str, int]) -> dict[str, News]:
        with self._database.read() as connection:  # one snapshot: a final status comes with its event
            steps = events.after_each(connection, wanted)
            changed = [name for name, new in steps.items() if any(step.kind == "status" for step in new)]
            shown = {
                report.increment.id: records.increment(report).model_dump(mode="json")
                for report in reports.of_ids(connection, changed)
            }
            found = increments.of_ids(connection, wanted.keys())
        return {one.id: News(one, steps.get(one.id, ()), shown.get(one.id)) for one in found}


def _wanted(readers: Sequence[_Reader]) -> dict[str, int]:
    """By increment, the number of the last event that all of its readers have."""
    wanted: dict[str, int] = {}
    for reader in readers:
        wanted[reader.increment_id] = min(reader.seen, wanted.get(reader.increment_id, reader.seen))
    return wanted
