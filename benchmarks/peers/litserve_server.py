"""LitServe with batching on: `python -m benchmarks.peers.litserve_server`, PEER_VERSION and PEER_PORT being set."""

import base64
import os
from typing import Any

import litserve
from torch import Tensor

from benchmarks.peers.classifier import MINIBATCH, WAIT_SECONDS, Classifier


class Api(litserve.LitAPI):
    """One image in base64 a request, as its documentation sends images."""

    def setup(self, device: str) -> None:
        """Load the weights, in the process that computes."""
        self.classifier = Classifier()

    def decode_request(self, request: dict[str, Any]) -> Tensor:
        """Decode the image."""
        return self.classifier.pixels(base64.b64decode(request["image"]))

    def batch(self, inputs: list[Tensor]) -> list[Tensor]:
        """Leave the stacking to the classifier."""
        return inputs

    def predict(self, inputs: list[Tensor]) -> list[list[tuple[str, float]]]:
        """Compute a batch."""
        return self.classifier.classify(inputs)

    def unbatch(self, output: list[list[tuple[str, float]]]) -> list[list[tuple[str, float]]]:
        """One answer each."""
        return output

    def encode_response(self, output: list[tuple[str, float]]) -> dict[str, Any]:
        """Labels and probabilities."""
        return {"predictions": [{"label": label, "probability": probability} for label, probability in output]}


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(max_batch_size=MINIBATCH, batch_timeout=WAIT_SECONDS, api_path="/predict"),
        accelerator="cpu",
        workers_per_device=1,
        timeout=60,
    )
    server.run(port=int(os.environ["PEER_PORT"]), log_level="warning", generate_client_file=False, num_api_servers=1)
