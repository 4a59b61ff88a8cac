"""Measures of serving, for Prometheus."""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own variable
_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 5)


def shared_folder() -> Path | None:
    """The folder for the counts of all processes that share the port; None if there is one process."""
    folder = os.environ.get(SHARED_FOLDER)
    return None if folder is None else Path(folder)


class Measures:
    """The instruments of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Create the instruments and register them with ``registry``."""
        self.registry = registry
        self.queue_images = Gauge(
            "accrete_queue_images", "Images that wait to be computed.", registry=registry, multiprocess_mode="livesum"
        )
        self.queue_seconds = Histogram(
            "accrete_queue_seconds", "From decoded to computed, by request.", registry=registry, buckets=_SECONDS
        )
        self.decode_seconds = Histogram(
            "accrete_decode_seconds", "Decoding and resizing of one image.", registry=registry, buckets=_SECONDS
        )
        self.inference_seconds = Histogram(
            "accrete_inference_seconds", "Computation of one minibatch.", registry=registry, buckets=_SECONDS
        )
        self.minibatch_images = Histogram(
            "accrete_minibatch_images",
            "Images computed together.",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
        )
        self.refused = Counter("accrete_refused_requests", "Requests that found the queue full.", registry=registry)
        self.current_version = Gauge(
            "accrete_current_version",
            "Version in service.",
            ("model",),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.models_not_current = Gauge(
            "accrete_models_not_current",
            "Models whose current version does not load: one before it answers, or none.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.swap_seconds = Histogram(
            "accrete_swap_seconds",
            "Loading, checking and warming of a version that takes over.",
            registry=registry,
            buckets=(0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
        )
        self.swap_failures = Counter(
            "accrete_swap_failures", "Versions that could not take over.", ("model",), registry=registry
        )
        self.requests = Counter(
            "accrete_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "accrete_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("route",),
            registry=registry,
            buckets=_SECONDS,
        )
        self.records_lost = Counter(
            "accrete_lost_records", "Prediction records that were not written.", registry=registry
        )
        self.images_lost = Counter(
            "accrete_lost_images", "Images of predictions that were to be kept and are not.", registry=registry
        )

    def forget(self, model: str) -> None:
        """Remove a deleted model's version; if several processes share the counts, it can only be set to 0."""
        self.current_version.labels(model).set(0)
        if shared_folder() is None:
            self.current_version.remove(model)
