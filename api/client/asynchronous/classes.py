"""The asynchronous twin of `api.client.classes`: written by `make types`; change that module instead."""

from api.client.asynchronous.connection import AsyncConnection
from api.client.documents import Class, Classes
from api.client.paths import address


class AsyncClassCalls:
    """Look at the classes of a model, and rename them."""

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
