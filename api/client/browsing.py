"""Client methods to look through what was collected: batches and images."""

from collections.abc import Iterator

from api.client.connection import Connection
from api.client.documents import Batch, StoredImage
from api.client.paths import address


class BrowsingCalls:
    """Client methods to look through what was collected."""

    _connection: Connection

    def batches(self, model: str) -> Iterator[Batch]:
        """What was collected for a model, latest first."""
        return self._connection.pages(address("models", model, "batches"))

    def images(
        self,
        model: str,
        *,
        label: str | None = None,
        split: str | None = None,
        exemplar_of: int | None = None,
        text: str | None = None,
    ) -> Iterator[StoredImage]:
        """The stored images of a model: of a class, of a side (train or test), kept by a version, with a name."""
        wanted = {"label": label, "split": split, "exemplar_of": exemplar_of, "text": text}
        return self._connection.pages(address("models", model, "images"), **wanted)

    def batch_images(
        self,
        batch_id: str,
        *,
        label: str | None = None,
        split: str | None = None,
        exemplar_of: int | None = None,
        text: str | None = None,
    ) -> Iterator[StoredImage]:
        """The stored images of a batch, filtered as those of a model."""
        wanted = {"label": label, "split": split, "exemplar_of": exemplar_of, "text": text}
        return self._connection.pages(address("batches", batch_id, "images"), **wanted)

    def thumbnail(self, image_id: str, *, side: int | None = None) -> bytes:
        """A small picture of a stored image, as JPEG; at most ``side`` pixels high and wide."""
        path = address("images", image_id, "thumbnail")
        return self._connection.request("GET", path, params={"side": side}).content
