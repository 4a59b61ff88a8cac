"""The asynchronous twin of `api.client.versions`: written by `make types`; change that module instead."""

import asyncio
import time
from collections.abc import AsyncGenerator
from http import HTTPStatus
from pathlib import Path

from api.client.asynchronous.connection import AsyncConnection
from api.client.connection import ClientError, Conflict
from api.client.documents import Comparison, Current, Evaluation, ModelMetrics, Promotion, Version, VersionMetrics
from api.client.files import made
from api.client.paths import address, keyed
from api.client.versions import PATIENCE_SECONDS


class AsyncVersionCalls:
    """Client methods for versions, their metrics and their promotion."""

    _connection: AsyncConnection

    def versions(self, model: str) -> AsyncGenerator[Version, None]:
        """Every version of a model."""
        return self._connection.pages(address("models", model, "versions"))

    async def version(self, model: str, number: int) -> Version:
        """One version."""
        version: Version = await self._connection.json("GET", address("models", model, "versions", number))
        return version

    async def delete_version(self, model: str, number: int) -> None:
        """Delete a version that is neither current nor head."""
        await self._connection.request("DELETE", address("models", model, "versions", number))

    async def download(self, model: str, number: int, folder: Path) -> None:
        """Write the files of a version into a folder: all that `trainer.networks` needs to predict."""
        await asyncio.to_thread(made, folder)
        for name in (await self.version(model, number))["files"]:
            path = address("models", model, "versions", number, "files", name)
            await self._connection.save(path, folder / Path(name).name)

    async def card(self, model: str, number: int) -> str:
        """A version's model card, in Markdown; what only a person knows is marked "not stated"."""
        return (await self._connection.request("GET", address("models", model, "versions", number, "card"))).text

    async def export(
        self, model: str, number: int, file: Path, *, kind: str = "onnx", patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Write a version into one file that can be computed without Accrete, with labels and transform inside.

        ``kind`` is ``onnx``, for any ONNX runtime, or ``pt2``, for torch.export. A worker makes the latter when it is
        asked for first; raises ClientError if that takes longer than ``patience_seconds``.
        """
        path = address("models", model, "versions", number, "export")
        began = time.monotonic()
        while True:
            answer = await self._connection.request("HEAD", path, params={"format": kind})
            if answer.status_code != HTTPStatus.ACCEPTED:
                break
            if time.monotonic() - began > patience_seconds:
                raise ClientError(f"version {number} of {model} is not exported yet: does a worker run?")
            await asyncio.sleep(float(answer.headers["Retry-After"]))
        await self._connection.save(path, file, format=kind)

    async def version_metrics(self, model: str, number: int) -> VersionMetrics:
        """Every metric of one version."""
        metrics: VersionMetrics = await self._connection.json(
            "GET", address("models", model, "versions", number, "metrics")
        )
        return metrics

    async def metrics(self, model: str, *, version: int | None = None) -> ModelMetrics:
        """The accuracy matrix and the curves along the ancestors of a version (default: of the head)."""
        path = address("models", model, "metrics")
        metrics: ModelMetrics = await self._connection.json("GET", path, params={"version": version})
        return metrics

    def evaluations(
        self,
        model: str,
        number: int,
        *,
        form: str | None = None,
        label: str | None = None,
        predicted: str | None = None,
        correct: bool | None = None,
    ) -> AsyncGenerator[Evaluation, None]:
        """What a version said of each evaluation image; none for versions of releases that kept metrics alone."""
        path = address("models", model, "versions", number, "evaluations")
        return self._connection.pages(path, form=form, label=label, predicted=predicted, correct=correct)

    async def compare(self, model: str, number: int, other: int, *, form: str | None = None) -> Comparison:
        """A version beside another one, image by image."""
        path = address("models", model, "versions", number, "comparison")
        comparison: Comparison = await self._connection.json("GET", path, params={"with": other, "form": form})
        return comparison

    async def plot(self, model: str, file: Path, *, plot: str = "overview", version: int | None = None) -> None:
        """Draw metrics into a file, PNG or SVG by its suffix.

        ``plot`` is overview, curves, matrix, classes or confusion. Raises ValueError for another suffix.
        """
        if (kind := file.suffix.lower().removeprefix(".")) not in {"png", "svg"}:
            raise ValueError(f"{file.name}: plots are PNG or SVG, so name the file .png or .svg")
        await self._connection.save(address("models", model, f"metrics.{kind}"), file, plot=plot, version=version)

    async def current(self, model: str) -> Current:
        """The version in service and the one before."""
        current: Current = await self._connection.json("GET", address("models", model, "current"))
        return current

    async def promote(
        self,
        model: str,
        version: int,
        *,
        reason: str | None = None,
        if_match: str | None = None,
        idempotency_key: str | None = None,
    ) -> Current:
        """Put a version into service; the ``reason`` is kept in the record of promotions.

        ``if_match`` is the ETag of the answer that named the current version. With it, raises PreconditionFailed if
        another version has been promoted since.
        """
        headers = keyed(idempotency_key) | ({} if if_match is None else {"If-Match": if_match})
        body = {"version": version} | ({} if reason is None else {"reason": reason})
        path = address("models", model, "current")
        current: Current = await self._connection.json("PUT", path, json=body, headers=headers)
        return current

    def promotions(self, model: str) -> AsyncGenerator[Promotion, None]:
        """Which version was put into service when, by whom and why, latest first."""
        return self._connection.pages(address("models", model, "promotions"))

    async def rollback(self, model: str, *, reason: str | None = None) -> Current:
        """Put the previous version back into service; raises Conflict when there is none."""
        response = await self._connection.request("GET", address("models", model, "current"))
        previous = response.json()["previous"]
        if previous is None:
            detail = f"{model} has no previous version to go back to; name one: accrete promote {model} VERSION"
            raise Conflict(status=409, kind="no-previous-version", detail=detail, extra={})
        return await self.promote(model, previous, reason=reason, if_match=response.headers.get("ETag"))
