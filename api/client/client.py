"""The Python client: everything the HTTP contract offers, typed.

with Client() as client:
    increment = client.start_increment("products", Path("new-classes.zip"))
    for event in client.events(increment["id"]):
        print(event.kind, event.data)
"""

import base64
import json
import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from api.client import following
from api.client.connection import CONNECT_SECONDS, DEFAULT_URL, ClientError, Conflict, Connection
from api.client.documents import (
    AuditEntry,
    Batch,
    Current,
    Image,
    ImagePrediction,
    Increment,
    Memory,
    Model,
    ModelMetrics,
    Prediction,
    PredictionRecord,
    Reject,
    Strategy,
    Version,
    VersionMetrics,
)
from api.client.following import Event
from api.client.packing import CHUNK_BYTES, OnUpload, Source, source_of

__all__ = ["Client", "Event", "IncrementFailed", "succeeded"]

DEFAULT_MEMORY: Memory = {"per_class": 20}  # iCaRL §4, as DESIGN has it
# The service reads the archive's whole directory before it answers.
_UPLOAD_PATIENCE = httpx.Timeout(600.0, connect=CONNECT_SECONDS)
Document = dict[str, Any]


class IncrementFailed(ClientError):
    """The increment ended as failed or cancelled."""

    def __init__(self, increment: Increment) -> None:
        """Say how it ended, and why."""
        super().__init__(f"increment {increment['id']} {increment['status']}: {increment['error'] or 'on request'}")
        self.increment = increment


class Client:
    """A connection to a running service; closes with the ``with`` statement."""

    def __init__(self, url: str = DEFAULT_URL, *, key: str | None = None, timeout_seconds: float = 60.0) -> None:
        """Say where the service is, and bring an API key if it asks for one; nothing is sent yet."""
        self._connection = Connection(url, key=key, timeout_seconds=timeout_seconds)

    def __enter__(self) -> "Client":
        """Use as it is."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._connection.close()

    # Models and strategies

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
    ) -> Model:
        """A new model; what is left out is the service's default, and ``memory=None`` means no rehearsal."""
        chosen = {
            "network": network,
            "image_size": image_size,
            "channels": channels,
            "strategy": strategy,
            "recipe": recipe,
            "retention": retention,
        }
        body = {"name": name, "memory": memory} | {key: value for key, value in chosen.items() if value is not None}
        model: Model = self._connection.json("POST", "/v1/models", json=body)
        return model

    def models(self) -> Iterator[Model]:
        """Every model."""
        return self._connection.pages("/v1/models")

    def model(self, name: str) -> Model:
        """One model."""
        model: Model = self._connection.json("GET", _path("models", name))
        return model

    def change_model(self, name: str, **changes: Any) -> Model:
        """New defaults for coming increments: strategy, recipe, memory, retention."""
        model: Model = self._connection.json("PATCH", _path("models", name), json=changes)
        return model

    def delete_model(self, name: str) -> None:
        """Delete a model with all its versions."""
        self._connection.request("DELETE", _path("models", name))

    def erase_image(self, image_id: str) -> None:
        """Take an image back, wherever it is kept."""
        self._connection.request("DELETE", _path("images", image_id))

    def erase_batch(self, batch_id: str) -> None:
        """Take a batch back with all its images."""
        self._connection.request("DELETE", _path("batches", batch_id))

    def erase_class(self, model: str, label: str) -> int:
        """Take every stored image of a class back; how many there were."""
        path = _path("models", model, "classes", label, "images")
        return int(self._connection.json("DELETE", path)["erased"])

    def image(self, image_id: str) -> bytes:
        """A stored image as it was uploaded."""
        return self._connection.request("GET", _path("images", image_id)).content

    def audit(self) -> Iterator[AuditEntry]:
        """Who asked for which change, latest first; for administrators."""
        return self._connection.pages("/v1/audit")

    def strategies(self) -> Iterator[Strategy]:
        """What an increment can optimise."""
        return self._connection.pages("/v1/strategies")

    # Batches and increments

    def create_batch(
        self,
        model: str,
        source: Path | Source | None = None,
        *,
        on_upload: OnUpload | None = None,
        idempotency_key: str | None = None,
    ) -> Batch:
        """An open batch to add images to, or with a folder or archive a closed one."""
        path, headers = _path("models", model, "batches"), _keyed(idempotency_key)
        batch: Batch = (
            self._connection.json("POST", path, headers=headers)
            if source is None
            else self._upload(path, source, params={}, headers=headers, on_upload=on_upload)
        )
        return batch

    def batch(self, batch_id: str) -> Batch:
        """What is in a batch."""
        batch: Batch = self._connection.json("GET", _path("batches", batch_id))
        return batch

    def rejects(self, batch_id: str) -> Iterator[Reject]:
        """Every bad file of a batch, which was left out, and why."""
        return self._connection.pages(_path("batches", batch_id, "rejects"))

    def add_images(
        self,
        batch_id: str,
        label: str,
        files: Sequence[Path],
        *,
        split: str | None = None,
        idempotency_key: str | None = None,
    ) -> list[Image]:
        """Add images of one class to an open batch, streamed from disk."""
        with ExitStack() as opened:
            parts = [
                ("images", (file.name, opened.enter_context(file.open("rb")), _media_type(file))) for file in files
            ]
            answer = self._connection.json(
                "POST",
                _path("batches", batch_id, "images"),
                params={"label": label, "split": split},
                files=parts,
                headers=_keyed(idempotency_key),
            )
        images: list[Image] = answer["images"]
        return images

    def start_increment(
        self,
        model: str,
        source: Path | Source | None = None,
        *,
        batch_id: str | None = None,
        strategy: str | None = None,
        recipe: Mapping[str, Any] | None = None,
        promote: str | None = None,
        known_classes: str | None = None,
        idempotency_key: str | None = None,
        on_upload: OnUpload | None = None,
    ) -> Increment:
        """Queue an increment from a folder or archive, or from a batch collected before; exactly one of the two."""
        if (source is None) == (batch_id is None):
            raise ValueError("give exactly one of source and batch_id")
        path = _path("models", model, "increments")
        headers = _keyed(idempotency_key)
        options: Document = {"strategy": strategy, "promote": promote, "known_classes": known_classes}
        increment: Increment
        if source is not None:
            options["recipe"] = None if recipe is None else json.dumps(recipe)
            increment = self._upload(path, source, params=options, headers=headers, on_upload=on_upload)
            return increment
        options |= {"recipe": recipe, "batch_id": batch_id}
        body = {name: value for name, value in options.items() if value is not None}
        increment = self._connection.json("POST", path, json=body, headers=headers)
        return increment

    def increment(self, increment_id: str) -> Increment:
        """Where an increment stands."""
        increment: Increment = self._connection.json("GET", _path("increments", increment_id))
        return increment

    def increments(self, model: str) -> Iterator[Increment]:
        """A model's increments, latest first."""
        return self._connection.pages(_path("models", model, "increments"))

    def cancel(self, increment_id: str) -> Increment:
        """Stop an increment."""
        increment: Increment = self._connection.json("POST", _path("increments", increment_id, "cancel"))
        return increment

    def retry(self, increment_id: str) -> Increment:
        """Try a failed or cancelled increment again."""
        increment: Increment = self._connection.json("POST", _path("increments", increment_id, "retry"))
        return increment

    def events(
        self, increment_id: str, *, last_event_id: str | None = None, patience_seconds: float = 60.0
    ) -> Iterator[Event]:
        """Follow an increment to its end; a broken stream is opened again where it broke off.

        Ends after the last status. Raises Unreachable when the service stays away for longer than the patience.
        """
        return following.events(
            self._connection,
            _path("increments", increment_id, "events"),
            last_event_id=last_event_id,
            patience_seconds=patience_seconds,
        )

    def wait(self, increment_id: str) -> Increment:
        """The increment once it has succeeded; raises IncrementFailed."""
        for _ in self.events(increment_id):
            pass
        return succeeded(self.increment(increment_id))

    def _upload(
        self,
        path: str,
        source: Path | Source,
        *,
        params: Document,
        headers: Mapping[str, str],
        on_upload: OnUpload | None,
    ) -> Any:
        body = source_of(source) if isinstance(source, Path) else source
        described = {"Content-Type": body.content_type}
        if body.length is not None:
            described["Content-Length"] = str(body.length)
        return self._connection.json(
            "POST",
            path,
            params=params,
            headers={**headers, **described},
            content=body.chunks(on_upload),
            timeout=_UPLOAD_PATIENCE,
        )

    # Versions and metrics

    def versions(self, model: str) -> Iterator[Version]:
        """Every version of a model."""
        return self._connection.pages(_path("models", model, "versions"))

    def version(self, model: str, number: int) -> Version:
        """One version."""
        version: Version = self._connection.json("GET", _path("models", model, "versions", number))
        return version

    def delete_version(self, model: str, number: int) -> None:
        """Delete a version that is neither current nor head."""
        self._connection.request("DELETE", _path("models", model, "versions", number))

    def download(self, model: str, number: int, folder: Path) -> None:
        """Write the files of a version into a folder: all that `trainer.networks` needs to predict."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.version(model, number)["files"]:
            path = _path("models", model, "versions", number, "files", name)
            with self._connection.stream("GET", path) as response, (folder / Path(name).name).open("wb") as file:
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    file.write(chunk)

    def version_metrics(self, model: str, number: int) -> VersionMetrics:
        """Every metric of one version."""
        metrics: VersionMetrics = self._connection.json("GET", _path("models", model, "versions", number, "metrics"))
        return metrics

    def metrics(self, model: str, *, version: int | None = None) -> ModelMetrics:
        """The accuracy matrix and the curves along the ancestors of a version (default: of the head)."""
        path = _path("models", model, "metrics")
        metrics: ModelMetrics = self._connection.json("GET", path, params={"version": version})
        return metrics

    def current(self, model: str) -> Current:
        """The version in service and the one before."""
        current: Current = self._connection.json("GET", _path("models", model, "current"))
        return current

    def promote(
        self, model: str, version: int, *, if_match: str | None = None, idempotency_key: str | None = None
    ) -> Current:
        """Put a version into service; with an ETag only if nobody else did so meanwhile (else PreconditionFailed)."""
        headers = _keyed(idempotency_key) | ({} if if_match is None else {"If-Match": if_match})
        path = _path("models", model, "current")
        current: Current = self._connection.json("PUT", path, json={"version": version}, headers=headers)
        return current

    def rollback(self, model: str) -> Current:
        """Put the previous version back into service; raises Conflict when there is none."""
        response = self._connection.request("GET", _path("models", model, "current"))
        previous = response.json()["previous"]
        if previous is None:
            detail = f"{model} has no previous version to go back to; name one: accrete promote {model} VERSION"
            raise Conflict(status=409, kind="no-previous-version", detail=detail, extra={})
        return self.promote(model, previous, if_match=response.headers.get("ETag"))

    # Predictions

    def predict(
        self,
        model: str,
        images: Sequence[bytes | Path],
        *,
        top_k: int | None = None,
        version: int | None = None,
        durable: bool = False,
    ) -> Prediction:
        """The most probable classes of each image; ``durable`` waits until the record is committed."""
        files = [image.read_bytes() if isinstance(image, Path) else image for image in images]
        body = {"images": [base64.b64encode(file).decode("ascii") for file in files]}
        params = {"top_k": top_k, "version": version, "record": "durable" if durable else None}
        prediction: Prediction = self._connection.json(
            "POST", _path("models", model, "predictions"), json=body, params=params
        )
        return prediction

    def predictions(self, model: str) -> Iterator[PredictionRecord]:
        """What was predicted, when, and by which version."""
        return self._connection.pages(_path("models", model, "predictions"))

    def prediction(self, prediction_id: str) -> PredictionRecord:
        """One record."""
        record: PredictionRecord = self._connection.json("GET", _path("predictions", prediction_id))
        return record

    def image_prediction(self, model: str, image_id: str) -> ImagePrediction:
        """The current version's prediction for a stored image."""
        path = _path("models", model, "images", image_id, "prediction")
        prediction: ImagePrediction = self._connection.json("GET", path)
        return prediction


def succeeded(increment: Increment) -> Increment:
    """The increment, if it has succeeded; raises IncrementFailed."""
    if increment["status"] != "succeeded":
        raise IncrementFailed(increment)
    return increment


def _keyed(idempotency_key: str | None) -> dict[str, str]:
    return {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}


def _path(*parts: str | int) -> str:
    """A path below /v1 with every part quoted."""
    return "/".join(["/v1", *(quote(str(part), safe="") for part in parts)])


def _media_type(file: Path) -> str:
    return mimetypes.guess_type(file.name)[0] or "application/octet-stream"
