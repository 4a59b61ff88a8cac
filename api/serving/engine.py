"""Predictions: image files in, ranked labels out, always from exactly one version."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from api.serving.registry import Registry
from storage.domain import Model
from storage.errors import ImageUnreadable, Invalid
from storage.settings import Settings
from trainer.networks import ImageRejected, decode, pixels

Ranked = tuple[tuple[str, float], ...]  # (label, probability), best first


@dataclass(frozen=True)
class Answer:
    """What a version says of some images."""

    version: int
    predictions: tuple[Ranked, ...]


class Engine:
    """Decodes in the caller's thread and infers on one thread of its own."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        """Serve what ``registry`` has loaded."""
        self.registry = registry
        self._settings = settings
        threads = settings.serving_threads or max((os.cpu_count() or 2) // 2, 1)
        self._inference = ThreadPoolExecutor(1, "inference", initializer=torch.set_num_threads, initargs=(threads,))

    def predict(self, model: Model, images: Sequence[bytes], *, top_k: int, version: int | None = None) -> Answer:
        """The ``top_k`` most probable classes of each image; blocks, so call it off the event loop.

        Raises `ImageUnreadable` that names the position of the image, `Invalid` for too many, `NoVersionYet` and
        `VersionNotFound`.
        """
        if not 1 <= len(images) <= self._settings.max_images_per_request:
            raise Invalid(
                f"{len(images)} images in one request: send 1 to {self._settings.max_images_per_request} at a time."
            )
        registry = self.registry
        served = registry.current(model) if version is None else registry.version(model, version)
        batch = torch.stack([self._pixels(data, position, model) for position, data in enumerate(images)])
        probabilities: Tensor = self._inference.submit(served.loaded.probabilities_of, batch).result()
        ranked = served.loaded.top_k(probabilities, top_k)
        return Answer(version=served.number, predictions=tuple(tuple(one) for one in ranked))

    def stop(self) -> None:
        """Finish what was begun and end the thread."""
        self._inference.shutdown()

    def _pixels(self, data: bytes, position: int, model: Model) -> Tensor:
        try:
            image = decode(data, channels=model.channels, max_pixels=self._settings.max_image_pixels)
        except ImageRejected as rejected:
            raise ImageUnreadable(
                f"Image {position} (counted from 0) cannot be read: {rejected}. Send JPEG, PNG, WebP, BMP or GIF.",
                image=position,
            ) from rejected
        return pixels(image, model.image_size)
