"""BentoML with batching on: `bentoml serve benchmarks.peers.bentoml_service:Api`, PEER_VERSION in the environment."""

import base64
from typing import Any

import bentoml

from benchmarks.peers.classifier import MINIBATCH, Classifier


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, traffic={"timeout": 60, "max_concurrency": 1000})
class Api:
    """Images in base64, gathered from many requests."""

    def __init__(self) -> None:
        """Load the weights."""
        self.classifier = Classifier()

    @bentoml.api(batchable=True, max_batch_size=MINIBATCH, max_latency_ms=10_000)
    def predict(self, images: list[str]) -> list[list[dict[str, Any]]]:
        """Compute a batch."""
        pixels = [self.classifier.pixels(base64.b64decode(image)) for image in images]
        return [
            [{"label": label, "probability": probability} for label, probability in one]
            for one in self.classifier.classify(pixels)
        ]
