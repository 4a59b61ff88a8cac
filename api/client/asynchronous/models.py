"""The asynchronous twin of `api.client.models`: written by `make types`; change that module instead."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from api.client.asynchronous.connection import AsyncConnection
from api.client.documents import AuditEntry, Memory, Model, Strategy
from api.client.models import DEFAULT_MEMORY
from api.client.paths import address


class AsyncModelCalls:
    """Client methods for models, erasure, stored images, strategies and the audit log."""

    _connection: AsyncConnection

    async def create_model(
        self,
        name: str,
        *,
        network: str | None = None,
        image_size: int | None = None,
        channels: int | None = None,
        strategy: str | None = None,
        recipe: Mapping[str, Any] | None = None,
        memory: Memory | None = DEFAULT_MEMORY,
        retention: str | None = None,
        keep_predictions: str | None = None,
    ) -> Model:
        """Create a model; options left out take the service's defaults, and ``memory=None`` means no rehearsal."""
        chosen = {
            "network": network,
            "image_size": image_size,
            "channels": channels,
            "strategy": strategy,
            "recipe": recipe,
            "retention": retention,
            "keep_predictions": keep_predictions,
        }
        body = {"name": name, "memory": memory} | {key: value for key, value in chosen.items() if value is not None}
        model: Model = await self._connection.json("POST", "/v1/models", json=body)
        return model

    def models(self) -> AsyncGenerator[Model, None]:
        """Every model."""
        return self._connection.pages("/v1/models")

    async def model(self, name: str) -> Model:
        """One model."""
        model: Model = await self._connection.json("GET", address("models", name))
        return model

    async def change_model(self, name: str, **changes: Any) -> Model:
        """Change the defaults for what is to come: strategy, recipe, memory, retention, keep_predictions."""
        model: Model = await self._connection.json("PATCH", address("models", name), json=changes)
        return model

    async def delete_model(self, name: str) -> None:
        """Delete a model with all its versions."""
        await self._connection.request("DELETE", address("models", name))

    async def erase_image(self, image_id: str) -> None:
        """Erase an image, wherever it is stored."""
        await self._connection.request("DELETE", address("images", image_id))

    async def erase_batch(self, batch_id: str) -> None:
        """Erase a batch with all its images."""
        await self._connection.request("DELETE", address("batches", batch_id))

    async def erase_class(self, model: str, label: str) -> int:
        """Erase every stored image of a class; returns their number."""
        path = address("models", model, "classes", label, "images")
        return int((await self._connection.json("DELETE", path))["erased"])

    async def image(self, image_id: str) -> bytes:
        """A stored image as it was uploaded."""
        return (await self._connection.request("GET", address("images", image_id))).content

    def audit(self) -> AsyncGenerator[AuditEntry, None]:
        """The entries of the audit log, latest first; for administrators."""
        return self._connection.pages("/v1/audit")

    def strategies(self) -> AsyncGenerator[Strategy, None]:
        """The strategies that an increment can use."""
        return self._connection.pages("/v1/strategies")
