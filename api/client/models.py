"""Client methods for models, erasure, stored images, strategies and the audit log."""

from collections.abc import Iterator, Mapping
from typing import Any

from api.client.connection import Connection
from api.client.documents import (
    AuditEntry,
    Memory,
    Model,
    Strategy,
)
from api.client.paths import address

DEFAULT_MEMORY: Memory = {"per_class": 20}  # iCaRL §4, as DESIGN has it


class ModelCalls:
    """Client methods for models, erasure, stored images, strategies and the audit log."""

    _connection: Connection

    def create_model(
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
        model: Model = self._connection.json("POST", "/v1/models", json=body)
        return model

    def models(self) -> Iterator[Model]:
        """Every model."""
        return self._connection.pages("/v1/models")

    def model(self, name: str) -> Model:
        """One model."""
        model: Model = self._connection.json("GET", address("models", name))
        return model

    def change_model(self, name: str, **changes: Any) -> Model:
        """Change the defaults for what is to come: strategy, recipe, memory, retention, keep_predictions."""
        model: Model = self._connection.json("PATCH", address("models", name), json=changes)
        return model

    def delete_model(self, name: str) -> None:
        """Delete a model with all its versions."""
        self._connection.request("DELETE", address("models", name))

    def erase_image(self, image_id: str) -> None:
        """Erase an image, wherever it is stored."""
        self._connection.request("DELETE", address("images", image_id))

    def erase_batch(self, batch_id: str) -> None:
        """Erase a batch with all its images."""
        self._connection.request("DELETE", address("batches", batch_id))

    def erase_class(self, model: str, label: str) -> int:
        """Erase every stored image of a class; returns their number."""
        path = address("models", model, "classes", label, "images")
        return int(self._connection.json("DELETE", path)["erased"])

    def image(self, image_id: str) -> bytes:
        """A stored image as it was uploaded."""
        return self._connection.request("GET", address("images", image_id)).content

    def audit(self) -> Iterator[AuditEntry]:
        """The entries of the audit log, latest first; for administrators."""
        return self._connection.pages("/v1/audit")

    def strategies(self) -> Iterator[Strategy]:
        """The strategies that an increment can use."""
        return self._connection.pages("/v1/strategies")
