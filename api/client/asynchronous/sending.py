"""Bodies of requests that come piece by piece: from an asynchronous iterator, or from files read in a thread."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterator
from dataclasses import dataclass

from api.client.packing import OnUpload, Source


@dataclass(frozen=True, slots=True)
class BatchStream:
    """A batch that is sent while it arrives, for example from the request of a browser.

    The next piece is taken when the one before is sent, so a slow service slows down the sender. It can be sent once.
    An asynchronous generator is closed afterwards, also if the upload fails or is cancelled.
    """

    pieces: AsyncIterable[bytes]
    content_type: str = "application/zip"
    length: int | None = None  # bytes; None if it is not known

    async def chunks(self, on_upload: OnUpload | None) -> AsyncGenerator[bytes, None]:
        """The bytes in pieces; ``on_upload`` is not called unless the length is known."""
        sent = 0
        try:
            async for piece in self.pieces:
                yield piece
                sent += len(piece)
                if on_upload is not None and self.length is not None:
                    on_upload(sent, self.length)
        finally:
            if isinstance(self.pieces, AsyncGenerator):
                await self.pieces.aclose()


AnySource = Source | BatchStream


async def in_a_thread(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The pieces of an iterator that blocks, each of which is made in a thread; so is a call to an ``on_upload``."""
    making: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            making = asyncio.ensure_future(asyncio.to_thread(next, pieces, None))
            if (piece := await asyncio.shield(making)) is None:
                return
            yield piece
    finally:
        if making is not None:
            await asyncio.wait([making])  # a thread cannot be cancelled, and files close only after it
        if isinstance(pieces, Generator):
            pieces.close()
