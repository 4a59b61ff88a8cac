"""The asynchronous twin of `api.client.predictions`: written by `make types`; change that module instead."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from api.client.asynchronous.connection import AsyncConnection
from api.client.documents import ImagePrediction, Prediction, PredictionRecord
from api.client.files import encoded
from api.client.paths import address


class AsyncPredictionCalls:
    """Client methods for predictions and their records."""

    _connection: AsyncConnection

    async def predict(
        self,
        model: str,
        images: Sequence[bytes | Path],
        *,
        top_k: int | None = None,
        version: int | None = None,
        durable: bool = False,
        reference: str | None = None,
    ) -> Prediction:
        """The most probable classes of each image.

        ``durable`` waits until the record is committed; ``reference`` is your own name for the request, by which
        `predictions` finds its record.
        """
        body = {"images": await asyncio.to_thread(encoded, images)}
        record = "durable" if durable else None
        params = {"top_k": top_k, "version": version, "record": record, "reference": reference}
        prediction: Prediction = await self._connection.json(
            "POST", address("models", model, "predictions"), json=body, params=params
        )
        return prediction

    def predictions(self, model: str, *, reference: str | None = None) -> AsyncGenerator[PredictionRecord, None]:
        """A model's records, latest first; with ``reference``, of the requests that bore it."""
        return self._connection.pages(address("models", model, "predictions"), reference=reference)

    async def prediction(self, prediction_id: str) -> PredictionRecord:
        """One record."""
        record: PredictionRecord = await self._connection.json("GET", address("predictions", prediction_id))
        return record

    async def kept_image(self, prediction_id: str, position: int = 0) -> bytes:
        """An image of a prediction as it was sent; `prediction` tells in ``kept`` which there are."""
        path = address("predictions", prediction_id, "images", str(position))
        return (await self._connection.request("GET", path)).content

    async def image_prediction(self, model: str, image_id: str) -> ImagePrediction:
        """The current version's prediction for a stored image."""
        path = address("models", model, "images", image_id, "prediction")
        prediction: ImagePrediction = await self._connection.json("GET", path)
        return prediction
