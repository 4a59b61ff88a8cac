"""The asynchronous twin of `api.client.classes`: written by `make types`; change that module instead."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from api.client.asynchronous.connection import AsyncConnection
from api.client.documents import Class, Classes, Increment, Relabel, Relabelled
from api.client.paths import address, keyed


class AsyncClassCalls:
    """Look at the classes of a model, rename, drop and merge them, and move images from one to another."""

    _connection: AsyncConnection

    async def classes(self, model: str, *, examples: int | None = None) -> Classes:
        """A model's classes: how many images are stored, and the ids of some of them."""
        path = address("models", model, "classes")
        classes: Classes = await self._connection.json("GET", path, params={"examples": examples})
        return classes

    async def rename_class(self, model: str, label: str, name: str) -> Class:
        """Call a class by another name, in all versions and at once."""
        path = address("models", model, "classes", label)
        renamed: Class = await self._connection.json("PATCH", path, json={"label": name})
        return renamed

    async def edit(
        self,
        model: str,
        *,
        drop: Sequence[str] = (),
        merge: Mapping[str, Sequence[str]] | None = None,
        promote: str | None = None,
        idempotency_key: str | None = None,
    ) -> Increment:
        """Queue an edit of the head: classes to drop, and by name what to merge into it; nothing is trained."""
        merges = [{"labels": list(labels), "into": into} for into, labels in (merge or {}).items()]
        body: dict[str, Any] = {"drop": list(drop), "merge": merges}
        if promote is not None:
            body["promote"] = promote
        headers = keyed(idempotency_key)
        queued: Increment = await self._connection.json(
            "POST", address("models", model, "edits"), json=body, headers=headers
        )
        return queued

    async def relabel_image(self, image_id: str, label: str) -> Relabelled:
        """Move a stored image to another class; the answer names the versions that had learned from it."""
        moved: Relabelled = await self._connection.json("PATCH", address("images", image_id), json={"label": label})
        return moved

    def relabels(self, model: str) -> AsyncGenerator[Relabel, None]:
        """Which images were moved to another class after versions had learned from them, latest first."""
        return self._connection.pages(address("models", model, "relabels"))
