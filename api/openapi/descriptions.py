"""The meaning of each property and parameter of the HTTP API, with an example: one for each name.

A description that a schema or parameter has already is kept. A key `Schema.property` is for one schema alone.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Word(NamedTuple):
    """The meaning of a name, and a value it may have."""

    meaning: str
    example: Any


_ID = "0f8fad5bd9cb469fa16570867728950e"
_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_TIME = "2026-11-28T09:30:00+00:00"
_CURVES = {"average_accuracy": [0.98, 0.91], "forgetting": [None, 0.04]}
_RANKED = [{"label": "rose", "probability": 0.93}, {"label": "tulip", "probability": 0.05}]

WORDS: Mapping[str, Word] = {
    # names and numbers
    "id": Word("Identifier, given by the service.", _ID),
    "name": Word("Name of a model.", "plants"),
    "model": Word("Name of the model.", "plants"),
    "model_name": Word("Name of the model.", "plants"),
    "model_version": Word("Version that answered.", "3"),
    "version": Word("Number of a version, from 1; null where there is none.", 3),
    "number": Word("Number of a version, from 1.", 3),
    "batch_id": Word("Identifier of a batch.", _ID),
    "image_id": Word("Identifier of a stored image.", _ID),
    "increment_id": Word("Identifier of an increment.", _ID),
    "prediction_id": Word("Identifier of a prediction's record.", _ID),
    "image": Word("Identifier of the stored image.", _ID),
    "label": Word("Name of a class.", "rose"),
    "file": Word("Name of a file.", "weights.safetensors"),
    "created_at": Word("When it was made (RFC 3339).", _TIME),
    "started_at": Word("When work on it began; null before.", _TIME),
    "finished_at": Word("When it ended; null before.", _TIME),
    # lists
    "items": Word("This page's entries.", []),
    "next_cursor": Word("What to send as cursor for the next page; null on the last.", "MTAw"),
    "limit": Word("Most entries of a page.", 100),
    "cursor": Word("next_cursor of the page before; left out: the first page.", "MTAw"),
    # models
    "network": Word("Architecture of the backbone.", "resnet32"),
    "image_size": Word("Height and width that images are brought to, in pixels.", 32),
    "channels": Word("1 (grey) or 3 (colour).", 3),
    "strategy": Word("What an increment optimises: a name from GET /v1/strategies.", "lwf-bsr"),
    "recipe": Word("Hyper-parameters that differ from the preset's: see recipe_schema of a strategy.", {"epochs": 10}),
    "form.recipe": Word("Hyper-parameters that differ from the preset's, as a JSON object.", '{"epochs": 10}'),
    "parameter.recipe": Word("Hyper-parameters that differ from the preset's, as a JSON object.", '{"epochs": 10}'),
    "memory": Word("Exemplars kept for rehearsal; null: none.", {"per_class": 20}),
    "per_class": Word("Exemplars of each class.", 20),
    "total": Word("Exemplars of all classes together.", 2000),
    "retention": Word("Which images are kept: all, exemplars (and evaluation images), or none.", "all"),
    "head": Word("Version that the next increment starts from; null before the first.", 3),
    "VersionOut.head": Word("Whether the next increment starts from it.", True),
    "current": Word("Version in service; null before the first.", 3),
    "VersionOut.current": Word("Whether it is in service.", True),
    "previous": Word("Version that was in service before; null where there is none.", 2),
    "revision": Word("Counts promotions; the ETag of /current is made of it.", 7),
    "classes": Word("Labels, in the order of the logits.", ["rose", "tulip"]),
    # batches and images
    "BatchOut.classes": Word("How many images of each class it holds.", [{"label": "rose", "train": 40, "test": 10}]),
    "BatchOut.status": Word("open (takes images), closed (belongs to an increment) or ingested (decoded).", "open"),
    "images": Word("The images.", []),
    "BatchOut.images": Word("How many images it holds.", 50),
    "PredictionIn.images": Word("Image files, each in base64.", ["iVBORw0KGgo…"]),
    "AddedImagesIn.images": Word("Image files, each in base64.", ["iVBORw0KGgo…"]),
    "form.images": Word("Image files.", []),
    "rejects": Word(
        "The first 100 of the bad files, which were left out, and why.",
        [{"file": "rose/7.jpg", "reason": "is no image"}],
    ),
    "reject_count": Word("How many bad files there are; GET /v1/batches/{batch_id}/rejects names all of them.", 1),
    "ignored": Word("Files that are nothing to learn from, by reason.", []),
    "notes": Word("What was understood of the archive's layout and is worth a look.", []),
    "files": Word("Names of some of them.", ["README.md"]),
    "VersionOut.files": Word("What it consists of, by name.", {"weights.safetensors": {"sha256": _DIGEST, "bytes": 1}}),
    "count": Word("How many there are.", 3),
    "digest": Word("SHA-256 of the content; null where there is none yet.", _DIGEST),
    "train": Word("Images to learn from.", 40),
    "test": Word("Images to evaluate with.", 10),
    "filename": Word("Name of the file as it was sent.", "7.jpg"),
    "split": Word("train or test; left out, the content decides.", "train"),
    "erased": Word("How many images were erased.", 12),
    "reason": Word("Why; null where there is no reason to tell.", "is no image"),
    "data": Word("A zip or tar archive in ImageFolder layout.", "batch.zip"),
    # increments
    "promote": Word("auto (into service, if the parent still is) or manual.", "auto"),
    "known_classes": Word(
        "Classes that the head has: refuse (409) or rehearse (train on them too, or on them alone).", "refuse"
    ),
    "IncrementOut.status": Word("queued, running, succeeded, failed or cancelled.", "running"),
    "attempt": Word("Counts how often a worker has begun with it.", 1),
    "attempts": Word("Every try at it.", []),
    "worker": Word("Who made the attempt.", "worker@host"),
    "outcome": Word("How the attempt ended; null while it runs.", "succeeded"),
    "parent": Word("Version it started from; null for the first.", 2),
    "promoted": Word("Whether the version went into service; null before there is one.", True),
    "note": Word("Why it was not promoted, where it was not.", "current is no longer the parent"),
    "notices": Word(
        "What to expect that is seldom wanted, and the way out.",
        ["'lucir' is made for rehearsal, and this increment shows no image of 'rose': …"],
    ),
    "needs_exemplars": Word("Whether it is made for rehearsal.", False),
    "progress": Word("Where it stands while it runs; null otherwise.", {"stage": "training", "epoch": 3, "epochs": 10}),
    "error": Word("Why it failed; null where it did not.", "the loss is not finite"),
    "ErrorOut.error": Word("What is wrong, and what to do.", "There is no model 'nobody'."),
    "seconds": Word("Duration of each stage, in seconds.", {"training": 41.5}),
    "stage": Word("What it is doing.", "training"),
    "epoch": Word("Epoch under way, from 1.", 3),
    "epochs": Word("Epochs there will be.", 10),
    "step": Word("Optimiser steps done in this stage.", 120),
    "steps": Word("Optimiser steps of this stage.", 400),
    "loss": Word("Loss of the latest minibatches.", 0.42),
    "images_per_second": Word("How fast it learns.", 2100.0),
    "eta_seconds": Word("Seconds that are left, by the speed so far.", 12.5),
    "last-event-id": Word("Id of the last event that was seen: go on after it.", 4),
    "idempotency-key": Word("The same key and request get the same answer, done once.", "monday-batch"),
    # versions and metrics
    "task": Word("The newest task it knows, from 0: its place in tasks.", 1),
    "tasks": Word("Classes by the increment that added them.", [["rose", "tulip"], ["lily"]]),
    "versions": Word("Numbers of versions, oldest first.", [1, 2]),
    "MetadataOut.versions": Word("Versions that can be asked.", ["1", "2"]),
    "data_digest": Word("SHA-256 of what it learned from.", _DIGEST),
    "code_version": Word("Release of the service that trained it.", "0.1.0"),
    "summary": Word("Headline of the metrics.", {"tag": {"average_accuracy": 0.91, "forgetting": 0.04}}),
    "average_accuracy": Word("Mean accuracy over tasks, 0 … 1; null where nothing was measured.", 0.91),
    "forgetting": Word("Mean loss of accuracy on old tasks, 0 … 1; null where nothing was measured.", 0.04),
    "test_images": Word("Evaluation images of each task; null where they are gone.", [200, 100]),
    "tag": Word("Metrics, the task not being told (docs/metrics.md).", _CURVES),
    "taw": Word("Metrics, the task being told (docs/metrics.md).", _CURVES),
    "imbalance": Word("How far new classes outweigh old ones (docs/metrics.md).", {"bias": 0.1}),
    "sha256": Word("Checksum.", _DIGEST),
    "bytes": Word("Size.", 1_900_000),
    "if-match": Word("ETags of the states in which to do it; *: any.", '"7"'),
    "if-none-match": Word("ETags of the states in which not to do it.", '"6"'),
    # strategies
    "StrategyOut.name": Word("Name to ask for it by.", "lwf-bsr"),
    "title": Word("Name for people.", "Learning without forgetting"),
    "explanation": Word("What it does, and what for.", "Distils what the old version knows into the new one."),
    "source": Word("Where it was published.", "Li and Hoiem, 2016"),
    "formula": Word("What is minimised.", "CE + λ · KD"),
    "StrategyOut.head": Word("Kind of heads it needs; null: either.", "linear"),
    "recipe_schema": Word("JSON schema of its recipe.", {"type": "object"}),
    # predictions
    "predictions": Word("Of each image the most probable classes, best first.", [_RANKED]),
    "ImagePredictionOut.predictions": Word("The most probable classes, best first.", _RANKED),
    "probability": Word("How probable, 0 … 1.", 0.93),
    "top_k": Word("Classes of each image, best first.", 5),
    "record": Word("behind (written soon, best effort) or durable (waits for the commit).", "behind"),
    "Accrete-Deadline-Seconds": Word("How long the answer may take, if less than the service allows.", 2.5),
    # the audit log, probes, errors
    "AuditEntryOut.number": Word("Place in the log.", 17),
    "key_id": Word("Identifier of the key that was shown; null without one.", _ID),
    "key_name": Word("Name of the key.", "label tool"),
    "client": Word("Address of the other end.", "10.0.0.7"),
    "action": Word("Method and route.", "DELETE /v1/images/{image_id}"),
    "path": Word("Path that was asked for.", f"/v1/images/{_ID}"),
    "status": Word("HTTP status of the answer; null if none was given.", 204),
    "HealthOut.status": Word("ok, or unavailable.", "ok"),
    "checks": Word("What each check found.", {"database": "ok", "broker": "ok"}),
    "type": Word("Address of a page about this type of problem.", "/problems/model-not-found"),
    "Problem.title": Word("The status in words.", "Not Found"),
    "detail": Word("What is wrong with this request, and what to do.", "There is no model 'nobody'."),
    # the Open Inference Protocol
    "live": Word("Whether the process answers.", True),
    "ready": Word("Whether it can be asked.", True),
    "IndexIn.ready": Word("Whether to list only what can be asked.", True),
    "ServerOut.name": Word("Name of the server.", "accrete"),
    "ServerOut.version": Word("Release of the server.", "0.1.0"),
    "extensions": Word("Extensions of the protocol that are spoken.", ["binary_tensor_data"]),
    "TensorOut.name": Word("Name of the tensor.", "image"),
    "InputIn.name": Word("Name of the tensor: image.", "image"),
    "OutputIn.name": Word("Name of the tensor: probabilities.", "probabilities"),
    "InferTensorOut.name": Word("Name of the tensor.", "probabilities"),
    "datatype": Word("Type of the elements: FP32, or BYTES of image files.", "FP32"),
    "shape": Word("Size of each dimension.", [1, 3, 32, 32]),
    "platform": Word("What computes it.", "pytorch"),
    "inputs": Word("Tensors that are sent.", []),
    "InferIn.inputs": Word(
        "The images, one tensor.", [{"name": "image", "shape": [1, 3, 32, 32], "datatype": "FP32", "data": [0.5]}]
    ),
    "outputs": Word("Tensors that come back.", []),
    "parameters": Word("Options of the protocol.", {}),
    "IndexEntryOut.version": Word("Number of the version; empty where there is none yet.", "3"),
    "state": Word("READY or UNAVAILABLE.", "READY"),
    "IndexEntryOut.reason": Word("Why it cannot be asked; empty where it can.", ""),
    "InferIn.id": Word("The caller's own name for the request, which comes back.", "42"),
    "InferOut.id": Word("The name that came with the request.", "42"),
    "binary_data_output": Word("Whether tensors come as bytes behind the JSON.", False),
    "binary_data": Word("Whether this tensor comes as bytes behind the JSON.", False),
    "binary_data_size": Word("Bytes of this tensor behind the JSON.", 12288),
    "timeout": Word("How long the answer may take, in microseconds.", 2_000_000),
    "classification": Word("How many of the best classes to give instead of all probabilities; 0: all.", 3),
    "InputIn.data": Word("Elements of the tensor, flat or nested; files in base64.", [0.5]),
    "InferTensorOut.data": Word("Elements of the tensor; null where they stand behind the JSON.", [0.93, 0.07]),
}


def describe(schema: str, properties: Mapping[str, dict[str, Any]]) -> None:
    """Add a description and an example, in place, to the properties of a schema that have none."""
    for name, described in properties.items():
        if (word := WORDS.get(f"{schema}.{name}", WORDS.get(name))) is not None:
            described.setdefault("description", word.meaning)
            if "example" not in described:
                described.setdefault("examples", [word.example])
