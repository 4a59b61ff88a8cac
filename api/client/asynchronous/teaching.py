"""The asynchronous twin of `api.client.teaching`: written by `make types`; change that module instead."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

from api.client.asynchronous import following
from api.client.asynchronous.connection import AsyncConnection
from api.client.asynchronous.sending import AnySource
from api.client.documents import Batch, Image, Increment, Reject
from api.client.events import Event
from api.client.files import form_of
from api.client.packing import OnUpload, source_of
from api.client.paths import address, keyed
from api.client.teaching import _UPLOAD_PATIENCE, Document, succeeded


class AsyncTeachingCalls:
    """Client methods for batches and increments."""

    _connection: AsyncConnection

    async def create_batch(
        self,
        model: str,
        source: Path | AnySource | None = None,
        *,
        on_upload: OnUpload | None = None,
        idempotency_key: str | None = None,
    ) -> Batch:
        """Create a batch: closed, from a folder or archive; or open, to add images to, if ``source`` is None."""
        path, headers = address("models", model, "batches"), keyed(idempotency_key)
        batch: Batch = (
            await self._connection.json("POST", path, headers=headers)
            if source is None
            else await self._upload(path, source, params={}, headers=headers, on_upload=on_upload)
        )
        return batch

    async def batch(self, batch_id: str) -> Batch:
        """A batch, with its classes and the number of its images."""
        batch: Batch = await self._connection.json("GET", address("batches", batch_id))
        return batch

    def rejects(self, batch_id: str) -> AsyncGenerator[Reject, None]:
        """Every file of a batch that was left out as no usable image, with the reason."""
        return self._connection.pages(address("batches", batch_id, "rejects"))

    async def add_images(
        self,
        batch_id: str,
        label: str,
        files: Sequence[Path],
        *,
        split: str | None = None,
        idempotency_key: str | None = None,
    ) -> list[Image]:
        """Add images of one class to an open batch, streamed from disk."""
        answer = await self._upload(
            address("batches", batch_id, "images"),
            await asyncio.to_thread(form_of, files),
            params={"label": label, "split": split},
            headers=keyed(idempotency_key),
            on_upload=None,
        )
        images: list[Image] = answer["images"]
        return images

    async def start_increment(
        self,
        model: str,
        source: Path | AnySource | None = None,
        *,
        batch_id: str | None = None,
        strategy: str | None = None,
        recipe: Mapping[str, Any] | None = None,
        promote: str | None = None,
        known_classes: str | None = None,
        idempotency_key: str | None = None,
        on_upload: OnUpload | None = None,
    ) -> Increment:
        """Queue an increment from a folder or archive, or from a batch collected before.

        Raises ValueError unless exactly one of ``source`` and ``batch_id`` is given.
        """
        if (source is None) == (batch_id is None):
            raise ValueError("give exactly one of source and batch_id")
        path = address("models", model, "increments")
        headers = keyed(idempotency_key)
        options: Document = {"strategy": strategy, "promote": promote, "known_classes": known_classes}
        increment: Increment
        if source is not None:
            options["recipe"] = None if recipe is None else json.dumps(recipe)
            increment = await self._upload(path, source, params=options, headers=headers, on_upload=on_upload)
            return increment
        options |= {"recipe": recipe, "batch_id": batch_id}
        body = {name: value for name, value in options.items() if value is not None}
        increment = await self._connection.json("POST", path, json=body, headers=headers)
        return increment

    async def increment(self, increment_id: str) -> Increment:
        """An increment, with its status and progress."""
        increment: Increment = await self._connection.json("GET", address("increments", increment_id))
        return increment

    def increments(self, model: str) -> AsyncGenerator[Increment, None]:
        """A model's increments, latest first."""
        return self._connection.pages(address("models", model, "increments"))

    async def cancel(self, increment_id: str) -> Increment:
        """Stop an increment."""
        increment: Increment = await self._connection.json("POST", address("increments", increment_id, "cancel"))
        return increment

    async def retry(self, increment_id: str) -> Increment:
        """Try a failed or cancelled increment again."""
        increment: Increment = await self._connection.json("POST", address("increments", increment_id, "retry"))
        return increment

    def events(
        self, increment_id: str, *, last_event_id: str | None = None, patience_seconds: float = 60.0
    ) -> AsyncGenerator[Event, None]:
        """Follow an increment to its final status; a broken stream is opened again after the last event received.

        Raises Unreachable or Unavailable if the service cannot be reached for longer than ``patience_seconds``.
        """
        return following.events(
            self._connection,
            address("increments", increment_id, "events"),
            last_event_id=last_event_id,
            patience_seconds=patience_seconds,
        )

    async def wait(self, increment_id: str) -> Increment:
        """Wait for the end of an increment and return it; raises IncrementFailed unless it succeeded."""
        async for _ in self.events(increment_id):
            pass
        return succeeded(await self.increment(increment_id))

    async def _upload(
        self,
        path: str,
        source: Path | AnySource,
        *,
        params: Document,
        headers: Mapping[str, str],
        on_upload: OnUpload | None,
    ) -> Any:
        body = await asyncio.to_thread(source_of, source) if isinstance(source, Path) else source
        described = {"Content-Type": body.content_type}
        if body.length is not None:
            described["Content-Length"] = str(body.length)
        return await self._connection.json(
            "POST",
            path,
            params=params,
            headers={**headers, **described},
            content=body.chunks(on_upload),
            timeout=_UPLOAD_PATIENCE,
        )
